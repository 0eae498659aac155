//! The live picture: redrawn in place on a terminal, plain lines elsewhere, nothing with `--json`.
use super::{script::Story, traffic::Flow};
use crate::out;
use std::{
    collections::VecDeque,
    fmt::Write as _,
    sync::Arc,
    time::{Duration, Instant},
};

/// Events below the picture.
const EVENTS: usize = 6;
/// The rate shown is an average over about this time.
const RATE_TIME: Duration = Duration::from_millis(500);

/// How the demo shows itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Style {
    /// Redrawn in place.
    Live,
    /// One line an event.
    Lines,
    /// Only the summary.
    Nothing,
}

/// Draws.
pub(crate) struct Picture {
    style: Style,
    colour: bool,
    started: Instant,
    title: String,
    events: VecDeque<String>,
    /// Lines of the last drawing, to go back over.
    drawn: usize,
    rates: [Rate; 2],
}

#[derive(Clone, Copy, Default)]
struct Rate {
    from: Option<(Instant, u64)>,
    per_second: f64,
}

impl Picture {
    /// Nothing drawn yet.
    pub(crate) fn new(json: bool) -> Self {
        let style = match (json, out::terminal()) {
            (true, _) => Style::Nothing,
            (false, true) => Style::Live,
            (false, false) => Style::Lines,
        };
        Self {
            style,
            colour: out::colour(),
            started: Instant::now(),
            title: String::new(),
            events: VecDeque::new(),
            drawn: 0,
            rates: [Rate::default(); 2],
        }
    }

    /// What is going on now.
    pub(crate) fn title(&mut self, title: &str) {
        title.clone_into(&mut self.title);
        self.event(&format!("── {title}"));
    }

    /// Something happened.
    pub(crate) fn event(&mut self, what: &str) {
        let line = format!("{:7.3} s  {what}", self.started.elapsed().as_secs_f64());
        match self.style {
            Style::Lines => out::line(&line),
            Style::Live => {
                if self.events.len() >= EVENTS {
                    self.events.pop_front();
                }
                self.events.push_back(line);
            }
            Style::Nothing => {}
        }
    }

    /// Draws the picture anew.
    pub(crate) fn draw(&mut self, story: &Story, flows: &[Arc<Flow>; 2]) {
        if self.style != Style::Live {
            return;
        }
        let text = self.text(story, flows);
        // Back over the last drawing, without wrapping of long lines, each line cleared to its end.
        let mut frame = String::from("\x1b[?7l");
        if self.drawn > 0 {
            let _ = write!(frame, "\x1b[{}A", self.drawn);
        }
        self.drawn = 0;
        for line in text.lines() {
            let _ = writeln!(frame, "\r\x1b[2K{line}");
            self.drawn += 1;
        }
        frame.push_str("\x1b[?7h");
        out::raw(&frame);
    }

    fn text(&mut self, story: &Story, flows: &[Arc<Flow>; 2]) -> String {
        let direct = [story.peers[0].direct, story.peers[1].direct];
        let busy = |used: bool| if used { self.paint("\x1b[32m", "carries traffic") } else { "stands by".to_owned() };
        let running = flows.iter().any(|flow| flow.sent() > 0);
        let relay_used = running && !(direct[0] && direct[1]);
        let direct_used = running && (direct[0] || direct[1]);
        let (upper, lower) = (if relay_used { "═" } else { "─" }, if direct_used { "═" } else { "┄" });
        let direct_state = match (story.cut, direct_used) {
            (Some(how), _) => self.paint("\x1b[31m", how),
            (None, true) => busy(true),
            (None, false) => "not there yet".to_owned(),
        };
        let mut text = String::new();
        let elapsed = self.started.elapsed().as_secs_f64();
        let _ = writeln!(text, "{}", self.paint("\x1b[1m", &format!("ShadowMesh demo   {elapsed:5.1} s   {}", self.title)));
        let _ = writeln!(text);
        let _ = writeln!(text, "         ┌{}  relay  {}┐  {}", upper.repeat(9), upper.repeat(9), busy(relay_used));
        let _ = writeln!(text, "  peer a ┤{}├ peer b", " ".repeat(27));
        let _ = writeln!(text, "         └{}  direct {}┘  {direct_state}", lower.repeat(9), lower.repeat(9));
        let _ = writeln!(text);
        for (index, arrow) in ["a → b", "b → a"].into_iter().enumerate() {
            let arrivals = flows[index].arrivals();
            let rate = self.rates[index].update(arrivals.delivered);
            let path = if direct[index] { "direct" } else { "relay " };
            let _ = writeln!(
                text,
                "  {arrow}  {rate:5.0}/s over {path}  sent {:6}  missing {:3}  doubled {}  out of order {}  longest gap {:6.1} ms",
                flows[index].sent(),
                arrivals.missing(),
                arrivals.duplicated,
                arrivals.reordered,
                super::summary::millis(arrivals.gap),
            );
        }
        let _ = writeln!(text);
        for line in &self.events {
            let _ = writeln!(text, "{line}");
        }
        for _ in self.events.len()..EVENTS {
            text.push('\n');
        }
        text
    }

    fn paint(&self, style: &str, text: &str) -> String {
        if self.colour { format!("{style}{text}\x1b[0m") } else { text.to_owned() }
    }
}

impl Rate {
    #[expect(clippy::cast_precision_loss, reason = "a rate for people")]
    fn update(&mut self, count: u64) -> f64 {
        let now = Instant::now();
        match self.from {
            Some((at, before)) if now - at >= RATE_TIME => {
                self.per_second = (count - before) as f64 / (now - at).as_secs_f64();
                self.from = Some((now, count));
            }
            Some(_) => {}
            None => self.from = Some((now, count)),
        }
        self.per_second
    }
}
