//! The configuration files of both programs: any text is understood or refused with one sentence that says where.
//!
//! It is beside the targets of the library, not in it, so that the library need not be built with the programs.
use std::path::Path;

/// The first byte chooses the program, the rest is the file's text.
pub(crate) fn config(data: &[u8]) {
    let Some((kind, rest)) = data.split_first() else { return };
    let Ok(text) = core::str::from_utf8(rest) else { return };
    let refused = match kind & 1 {
        0 => shadowmesh_daemon::check_config(text).err(),
        _ => shadowmesh_relay::settings::Settings::of_text(Path::new("relay.toml"), text).err().map(|failure| failure.to_string()),
    };
    if let Some(sentence) = refused {
        assert_eq!(sentence.lines().count(), 1, "{sentence:?}");
        assert!(sentence.contains("peer.toml") || sentence.contains("relay.toml"), "which file: {sentence:?}");
    }
}
