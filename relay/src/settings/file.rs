//! relay.toml: each fault is named with file, line, key, and what would be right.
use super::{
    Settings,
    keys::{Given, KEYS, Key},
};
use crate::Failure;
use core::ops::Range;
use std::{collections::BTreeSet, path::Path};
use toml::de::{DeInteger, DeTable, DeValue};

/// Takes what the file sets.
pub(super) fn apply(settings: &mut Settings, path: &Path, text: &str) -> Result<(), Failure> {
    let wrong = |at: &Range<usize>, why: String| Failure::usage(format!("{}:{}: {why}", path.display(), line(text, at.start)));
    let table = DeTable::parse(text).map_err(|error| {
        let why = error.message().lines().collect::<Vec<_>>().join(" ");
        wrong(&error.span().unwrap_or_default(), format!("this is not TOML: {why}"))
    })?;
    for (section, value) in table.get_ref() {
        let name = section.get_ref().as_ref();
        if !KEYS.iter().any(|key| key.section == name) {
            return Err(wrong(&section.span(), unknown_section(name)));
        }
        let Some(section_table) = value.get_ref().as_table() else {
            return Err(wrong(&section.span(), format!("{name} is a section; right would be a line [{name}] with its keys below")));
        };
        for (key, value) in section_table {
            let key_name = key.get_ref().as_ref();
            let Some(found) = KEYS.iter().find(|key| key.section == name && key.name == key_name) else {
                return Err(wrong(&key.span(), unknown_key(name, key_name)));
            };
            found.apply(settings, &given(value.get_ref())).map_err(|why| wrong(&value.span(), why))?;
        }
    }
    Ok(())
}

fn given(value: &DeValue<'_>) -> Given {
    match value {
        DeValue::String(text) => Given::Text(text.to_string()),
        DeValue::Integer(number) => integer(number).map_or(Given::Other("this number"), Given::Number),
        DeValue::Array(list) => {
            let texts: Option<Vec<_>> = list.iter().map(|value| value.get_ref().as_str().map(str::to_owned)).collect();
            texts.map_or(Given::Other("a list of other things"), Given::List)
        }
        DeValue::Float(_) => Given::Other("a number with a fraction"),
        DeValue::Boolean(true) => Given::Other("true"),
        DeValue::Boolean(false) => Given::Other("false"),
        DeValue::Datetime(_) => Given::Other("a date"),
        DeValue::Table(_) => Given::Other("a table"),
    }
}

fn integer(number: &DeInteger<'_>) -> Option<i128> {
    i128::from_str_radix(number.as_str(), number.radix()).ok()
}

fn unknown_section(name: &str) -> String {
    let sections: BTreeSet<_> = KEYS.iter().map(|key| key.section).collect();
    let close = nearest(name, sections.iter().copied());
    let sections = sections.into_iter().map(|section| format!("[{section}]")).collect::<Vec<_>>().join(", ");
    match close {
        Some(close) => format!("there is no section [{name}]; right would be [{close}]"),
        None => format!("there is no section [{name}]; right would be one of {sections}"),
    }
}

fn unknown_key(section: &str, name: &str) -> String {
    let of_section = || KEYS.iter().filter(|key| key.section == section).map(|key: &Key| key.name);
    match nearest(name, of_section()) {
        Some(close) => format!("there is no key {section}.{name}; right would be {section}.{close}"),
        None => format!("there is no key {section}.{name}; right would be one of {}", of_section().collect::<Vec<_>>().join(", ")),
    }
}

/// The name that was probably meant.
fn nearest<'a>(name: &str, names: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    names.map(|other| (distance(name, other), other)).filter(|(far, other)| *far <= 1 + other.len() / 4).min().map(|(_, other)| other)
}

/// How many letters to insert, remove or replace.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, from) in a.chars().take(64).enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, to) in b.iter().enumerate() {
            let cost = diagonal + usize::from(from != *to);
            diagonal = row[j + 1];
            row[j + 1] = cost.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}

fn line(text: &str, at: usize) -> usize {
    text.as_bytes().iter().take(at).filter(|byte| **byte == b'\n').count() + 1
}
