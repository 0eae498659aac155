//! The page at the metrics port: what `status` shows, for a browser. It has no script and asks nobody else for anything; it only reads.
use crate::report::{Report, bytes, precise, time};
use std::fmt::Write as _;

/// Seconds after which a browser asks again.
const REFRESH: u32 = 5;
/// Clients in the table, those with most traffic first; the others are counted.
const ROWS: usize = 200;

const STYLE: &str = "body{font:15px/1.5 system-ui,sans-serif;margin:2rem auto;max-width:72rem;padding:0 1rem;color:#1c2530;background:#fff}\
h1{font-size:1.3rem;margin:0 0 .2rem}h2{font-size:1.05rem;margin:1.6rem 0 .4rem}code{font-size:.85em;overflow-wrap:anywhere}\
dl{display:grid;grid-template-columns:repeat(auto-fill,minmax(11rem,1fr));gap:.6rem;margin:1rem 0}\
dl div{border:1px solid #d5dbe2;border-radius:.4rem;padding:.5rem .7rem}dt{color:#5a6775;font-size:.85em}dd{margin:0;font-size:1.15rem}\
table{border-collapse:collapse;width:100%}th,td{text-align:left;padding:.25rem .6rem .25rem 0;border-bottom:1px solid #e4e8ed}\
td.n,th.n{text-align:right;font-variant-numeric:tabular-nums}.scroll{overflow-x:auto}\
@media(prefers-color-scheme:dark){body{color:#dfe5ec;background:#12171d}dl div{border-color:#37424e}th,td{border-color:#2a333d}dt{color:#96a3b1}}";

/// The page as HTML.
pub(crate) fn render(report: &Report) -> String {
    let mut page = String::with_capacity(8 * 1024);
    let id = escaped(&report.id);
    let _ = write!(
        page,
        "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\"><meta name=\"viewport\" content=\"width=device-width\">\
         <meta http-equiv=\"refresh\" content=\"{REFRESH}\"><title>ShadowMesh relay</title><style>{STYLE}</style></head><body>\
         <h1>ShadowMesh relay: {}</h1><p><code>{id}</code><br>{} · {}</p>",
        escaped(&report.state),
        escaped(&report.version),
        escaped(&report.listen.join(" ")),
    );
    page.push_str("<dl>");
    let rates = report.clients.iter().fold((0.0, 0.0), |(rx, tx), client| (rx + client.rx_bytes_per_s, tx + client.tx_bytes_per_s));
    for (name, value) in [
        ("up", time(report.uptime_s)),
        ("clients", report.clients.len().to_string()),
        ("networks", report.networks.to_string()),
        ("in", format!("{}/s", bytes(rates.0))),
        ("out", format!("{}/s", bytes(rates.1))),
        ("waiting", bytes(precise(report.totals.queue_bytes as u64))),
        ("handshakes", format!("{}, {} failed", report.handshakes.success, report.handshakes.failure)),
        ("without proof", report.preauth.to_string()),
    ] {
        let _ = write!(page, "<div><dt>{name}</dt><dd>{value}</dd></div>");
    }
    page.push_str("</dl>");
    clients(&mut page, report);
    drops(&mut page, report);
    page.push_str("</body></html>\n");
    page
}

fn clients(page: &mut String, report: &Report) {
    page.push_str("<h2>Clients</h2>");
    if report.clients.is_empty() {
        page.push_str("<p>Nobody is connected.</p>");
        return;
    }
    let mut sorted: Vec<_> = report.clients.iter().collect();
    let busy = |client: &crate::report::Client| client.rx_bytes_per_s + client.tx_bytes_per_s;
    sorted.sort_by(|a, b| busy(b).total_cmp(&busy(a)));
    page.push_str(
        "<div class=\"scroll\"><table><thead><tr><th>client</th><th class=\"n\">network</th><th>address</th><th class=\"n\">since</th>\
         <th class=\"n\">from</th><th class=\"n\">to</th><th class=\"n\">queue</th></tr></thead><tbody>",
    );
    for client in sorted.iter().take(ROWS) {
        let _ = write!(
            page,
            "<tr><td><code title=\"{}\">{}</code></td><td class=\"n\">{}</td><td>{}</td><td class=\"n\">{}</td><td class=\"n\">{}/s</td>\
             <td class=\"n\">{}/s</td><td class=\"n\">{}</td></tr>",
            escaped(&client.id),
            escaped(&client.id.chars().take(15).collect::<String>()),
            client.network,
            escaped(&client.remote),
            time(client.since_s),
            bytes(client.rx_bytes_per_s),
            bytes(client.tx_bytes_per_s),
            client.queue_frames,
        );
    }
    page.push_str("</tbody></table></div>");
    if sorted.len() > ROWS {
        let _ = write!(page, "<p>and {} more</p>", sorted.len() - ROWS);
    }
}

fn drops(page: &mut String, report: &Report) {
    page.push_str("<h2>Dropped and refused since the start</h2>");
    if report.drops.is_empty() {
        page.push_str("<p>Nothing.</p>");
        return;
    }
    page.push_str("<table><tbody>");
    for (reason, count) in &report.drops {
        let _ = write!(page, "<tr><td>{}</td><td class=\"n\">{count}</td></tr>", escaped(reason));
    }
    page.push_str("</tbody></table>");
}

/// Text that stands for itself in HTML, in attributes too.
fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            other => out.push(other),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::Client;

    fn client(id: &str, rate: f64) -> Client {
        Client { rx_bytes_per_s: rate, ..Client::some(id) }
    }

    #[test]
    fn the_busiest_come_first_and_the_rest_is_counted() {
        let clients = (0..205).map(|number| client(&format!("sm-number{number}"), f64::from(number))).collect();
        let page = render(&Report { clients, drops: [("queue_full".to_owned(), 3)].into(), ..Report::default() });
        assert!(page.find("sm-number204") < page.find("sm-number203") && !page.contains("sm-number4\""), "{page}");
        for part in ["and 5 more", "queue_full</td><td class=\"n\">3<", ">205<", "90s"] {
            assert!(page.contains(part), "{part} is not in {page}");
        }
    }

    #[test]
    fn nothing_in_it_is_markup_of_others_and_nothing_is_fetched() {
        let page = render(&Report { id: "<script>'\"&".to_owned(), clients: vec![client("<b>", 0.0)], ..Report::default() });
        assert!(page.contains("&lt;script&gt;&#39;&quot;&amp;") && page.contains("&lt;b&gt;"), "{page}");
        for word in ["<script", "<b>", "src=", "href=", "http:", "https:", "url("] {
            assert!(!page.contains(word), "{word} is in {page}");
        }
    }
}
