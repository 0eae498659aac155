//! `ping`: asks a peer over the overlay and names the path that each answer took.
use crate::{
    cli::PingArgs,
    control::{Client, Pinged, Reply, Request},
    failure::Failure,
    out,
};
use serde::Serialize;
use std::time::{Duration, Instant};

/// How long one answer may take.
const REPLY_TIME: Duration = Duration::from_secs(2);
/// What `--until-direct` waits in all unless told otherwise.
const UNTIL_DIRECT_TIME: Duration = Duration::from_secs(30);
/// How often a peer that is not known yet is asked for again.
const LOOK_INTERVAL: Duration = Duration::from_millis(200);
/// A bound for the list of replies in the JSON; counting goes on beyond it.
const MAX_REPLIES: usize = 100_000;

/// One reply in the JSON.
#[derive(Debug, Serialize)]
struct Row {
    seq: u32,
    rtt_ms: f64,
    out: String,
    back: String,
}

/// The end of a ping run.
#[derive(Debug, Serialize)]
struct Summary {
    peer: String,
    name: Option<String>,
    address: Option<String>,
    sent: u32,
    received: u32,
    loss_percent: f64,
    /// An answer went out and came back over a direct path.
    direct: bool,
    min_ms: Option<f64>,
    avg_ms: Option<f64>,
    max_ms: Option<f64>,
    elapsed_s: f64,
    replies: Vec<Row>,
}

/// A run in progress.
struct Run<'a> {
    args: &'a PingArgs,
    client: Client,
    started: Instant,
    /// When the whole command gives up.
    deadline: Option<Instant>,
    summary: Summary,
    sum_ms: f64,
    /// Why nobody could be asked, last time.
    unknown: Option<Failure>,
}

/// Runs `shadowmesh ping`.
pub(crate) fn run(args: &PingArgs) -> Result<(), Failure> {
    let client = Client::connect(&args.files)?;
    let started = Instant::now();
    let time = args.timeout.or(args.until_direct.then_some(UNTIL_DIRECT_TIME));
    let summary = Summary {
        peer: args.peer.clone(),
        name: None,
        address: None,
        sent: 0,
        received: 0,
        loss_percent: 0.0,
        direct: false,
        min_ms: None,
        avg_ms: None,
        max_ms: None,
        elapsed_s: 0.0,
        replies: Vec::new(),
    };
    Run { args, client, started, deadline: time.map(|time| started + time), summary, sum_ms: 0.0, unknown: None }.all()
}

impl Run<'_> {
    fn all(mut self) -> Result<(), Failure> {
        loop {
            let sent_at = Instant::now();
            self.one()?;
            let enough = self.args.count.is_some_and(|count| self.summary.sent >= count);
            if enough || (self.args.until_direct && self.summary.direct) {
                break;
            }
            let wait = if self.unknown.is_some() { self.args.interval.min(LOOK_INTERVAL) } else { self.args.interval };
            let next = sent_at + wait;
            if self.deadline.is_some_and(|deadline| next >= deadline) {
                // Nothing more can be sent in time.
                break;
            }
            std::thread::sleep(next.saturating_duration_since(Instant::now()));
        }
        self.finish()
    }

    /// Sends one ping and takes its answer.
    fn one(&mut self) -> Result<(), Failure> {
        let left = self.deadline.map_or(REPLY_TIME, |deadline| deadline.saturating_duration_since(Instant::now()).min(REPLY_TIME));
        let wait_ms = u64::try_from(left.as_millis()).expect("at most two seconds").max(1);
        let sequence = self.summary.sent + 1;
        let pinged: Pinged = match self.client.ask(&Request::Ping { peer: self.args.peer.clone(), wait_ms }) {
            Ok(pinged) => pinged,
            // Whoever gives us time gives it to a peer that is still to appear as well.
            Err(failure) if self.deadline.is_some() && failure.sentence.starts_with("no peer") => {
                self.unknown = Some(failure);
                return Ok(());
            }
            Err(failure) => return Err(failure),
        };
        self.unknown = None;
        self.summary.sent = sequence;
        self.summary.peer.clone_from(&pinged.id);
        self.summary.name.clone_from(&pinged.name);
        self.summary.address.clone_from(&pinged.address);
        let whom = format!("{} ({})", pinged.name.as_deref().unwrap_or(&self.args.peer), pinged.address.as_deref().unwrap_or(&pinged.id));
        match pinged.reply {
            Some(reply) => self.answered(sequence, &whom, reply),
            None if !self.args.json => out::line(format!("no answer from {whom} id={sequence}")),
            None => {}
        }
        Ok(())
    }

    fn answered(&mut self, sequence: u32, whom: &str, reply: Reply) {
        let summary = &mut self.summary;
        summary.received += 1;
        summary.direct |= reply.out.starts_with("direct/") && reply.back.starts_with("direct/");
        summary.min_ms = Some(summary.min_ms.map_or(reply.rtt_ms, |least| least.min(reply.rtt_ms)));
        summary.max_ms = Some(summary.max_ms.map_or(reply.rtt_ms, |most| most.max(reply.rtt_ms)));
        self.sum_ms += reply.rtt_ms;
        if !self.args.json {
            out::line(format!("from {whom} id={sequence} via {} time={:.2} ms", via(&reply), reply.rtt_ms));
        }
        if summary.replies.len() < MAX_REPLIES {
            summary.replies.push(Row { seq: sequence, rtt_ms: reply.rtt_ms, out: reply.out, back: reply.back });
        }
    }

    fn finish(mut self) -> Result<(), Failure> {
        let summary = &mut self.summary;
        let (sent, received) = (f64::from(summary.sent), f64::from(summary.received));
        summary.loss_percent = if summary.sent == 0 { 0.0 } else { tenth((sent - received) / sent * 100.0) };
        summary.avg_ms = (summary.received > 0).then(|| (self.sum_ms / received * 1e3).round() / 1e3);
        summary.elapsed_s = (self.started.elapsed().as_secs_f64() * 1e3).round() / 1e3;
        if self.args.json {
            out::json(summary);
        } else if summary.sent > 0 {
            let times = match (summary.min_ms, summary.avg_ms, summary.max_ms) {
                (Some(min), Some(avg), Some(max)) => format!(", min/avg/max {min:.2}/{avg:.2}/{max:.2} ms"),
                _ => String::new(),
            };
            out::line(format!("{} sent, {} answered, {}% lost{times}", summary.sent, summary.received, summary.loss_percent));
        }
        if let Some(failure) = self.unknown {
            return Err(failure);
        }
        if self.args.until_direct && !summary.direct {
            return Err(Failure::failed(format!(
                "no direct path to {} in time; `shadowmesh peer explain {}` tells why",
                self.args.peer, self.args.peer
            )));
        }
        if summary.received == 0 { Err(Failure::silent()) } else { Ok(()) }
    }
}

/// `direct/wss`, or both directions where they differ.
fn via(reply: &Reply) -> String {
    if reply.out == reply.back { reply.out.clone() } else { format!("{} back {}", reply.out, reply.back) }
}

fn tenth(value: f64) -> f64 {
    (value * 10.0).round() / 10.0
}
