//! A very small HTTP/1.1 responder for `/metrics`, `/healthz` and `/readyz`: GET and HEAD, one answer a connection.
//!
//! Size, time and number of requests are bounded; whoever needs more than that puts a real server in front.
use futures_util::{StreamExt, stream::FuturesUnordered};
use smol::{
    Timer, future,
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};
use std::{io, time::Duration};

/// Request line and headers together, in bytes: a scraper sends some hundred.
pub const MAX_REQUEST_BYTES: usize = 8 * 1024;
/// One whole exchange.
pub const EXCHANGE_TIME: Duration = Duration::from_secs(5);
/// Exchanges at one time; more wait in the kernel's backlog.
pub const MAX_CONNECTIONS: usize = 32;
/// Pause after a failed accept, so that exhausted descriptors do not spin the loop.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What is answered to one request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Response {
    /// The HTTP status code.
    pub status: u16,
    /// The value of `Content-Type`.
    pub content_type: &'static str,
    /// The body; left out for HEAD.
    pub body: String,
}

impl Response {
    /// Plain text.
    pub fn text(status: u16, body: impl Into<String>) -> Self {
        Self { status, content_type: "text/plain; charset=utf-8", body: body.into() }
    }

    /// The text format of Prometheus (`OpenMetrics` 1.0, as prometheus-client writes it).
    pub fn metrics(body: String) -> Self {
        Self { status: 200, content_type: "application/openmetrics-text; version=1.0.0; charset=utf-8", body }
    }

    /// A page for a browser. It may have styles of its own, and nothing from anywhere else.
    pub fn html(body: String) -> Self {
        Self { status: 200, content_type: "text/html; charset=utf-8", body }
    }

    /// What is said for a path that does not exist.
    pub fn not_found() -> Self {
        Self::text(404, "not found\n")
    }
}

/// Answers requests for ever. `handler` gets the path without its query.
pub async fn serve<F, A>(listener: TcpListener, handler: F)
where
    F: Fn(String) -> A,
    A: Future<Output = Response>,
{
    let mut exchanges = FuturesUnordered::new();
    loop {
        if exchanges.len() >= MAX_CONNECTIONS {
            exchanges.next().await;
            continue;
        }
        let accept = async { Some(listener.accept().await) };
        let finish = async {
            if exchanges.next().await.is_none() {
                future::pending::<()>().await;
            }
            None
        };
        match future::or(accept, finish).await {
            Some(Ok((stream, _))) => exchanges.push(within_time(stream, &handler)),
            Some(Err(error)) => {
                tracing::debug!(%error, "http accept failed");
                Timer::after(ACCEPT_PAUSE).await;
            }
            None => {}
        }
    }
}

async fn within_time<F, A>(stream: TcpStream, handler: &F)
where
    F: Fn(String) -> A,
    A: Future<Output = Response>,
{
    let late = async {
        Timer::after(EXCHANGE_TIME).await;
        Err(io::ErrorKind::TimedOut.into())
    };
    if let Err(error) = future::or(exchange(stream, handler), late).await {
        tracing::trace!(%error, "http exchange failed");
    }
}

async fn exchange<F, A>(mut stream: TcpStream, handler: &F) -> io::Result<()>
where
    F: Fn(String) -> A,
    A: Future<Output = Response>,
{
    let (response, with_body) = match read_head(&mut stream).await? {
        None => (Response::text(431, "request too large\n"), true),
        Some(head) => match parse_request_line(&head) {
            Some(("GET", path)) => (handler(path.to_owned()).await, true),
            Some(("HEAD", path)) => (handler(path.to_owned()).await, false),
            Some(_) => (Response::text(405, "only GET and HEAD\n"), true),
            None => (Response::text(400, "not an HTTP/1 request\n"), true),
        },
    };
    let mut out = format!(
        "HTTP/1.1 {} {}\r\nContent-Type: {}\r\nContent-Length: {}\r\nConnection: close\r\n\
         Cache-Control: no-store\r\nX-Content-Type-Options: nosniff\r\n\
         Content-Security-Policy: default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'\r\n\r\n",
        response.status,
        reason(response.status),
        response.content_type,
        response.body.len()
    );
    if with_body {
        out.push_str(&response.body);
    }
    stream.write_all(out.as_bytes()).await?;
    stream.flush().await?;
    stream.shutdown(std::net::Shutdown::Write)
}

/// Reads up to the empty line; `None` when that does not come within the size.
async fn read_head(stream: &mut TcpStream) -> io::Result<Option<Vec<u8>>> {
    let mut head = Vec::new();
    let mut chunk = [0; 1024];
    loop {
        let count = stream.read(&mut chunk).await?;
        if count == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let searched = head.len().saturating_sub(3);
        head.extend_from_slice(&chunk[..count]);
        if head[searched..].windows(4).any(|four| four == b"\r\n\r\n") {
            return Ok(Some(head));
        }
        if head.len() > MAX_REQUEST_BYTES {
            return Ok(None);
        }
    }
}

/// Method and path (without query) of `GET /path HTTP/1.1`.
fn parse_request_line(head: &[u8]) -> Option<(&str, &str)> {
    let line = head.split(|byte| *byte == b'\r').next()?;
    let mut words = core::str::from_utf8(line).ok()?.split(' ');
    let (method, target, version) = (words.next()?, words.next()?, words.next()?);
    if words.next().is_some() || !version.starts_with("HTTP/1.") || !target.starts_with('/') {
        return None;
    }
    Some((method, target.split('?').next()?))
}

fn reason(status: u16) -> &'static str {
    match status {
        200 => "OK",
        400 => "Bad Request",
        404 => "Not Found",
        405 => "Method Not Allowed",
        431 => "Request Header Fields Too Large",
        503 => "Service Unavailable",
        _ => "Status",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_get_and_head_and_refuses_the_rest() {
        smol::block_on(future::or(
            async {
                let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback binds");
                let address = listener.local_addr().expect("bound");
                let server = serve(listener, async |path| match path.as_str() {
                    "/healthz" => Response::text(200, "ok\n"),
                    _ => Response::not_found(),
                });
                let client = async {
                    for (request, status, body) in [
                        ("GET /healthz?x=1 HTTP/1.1\r\nHost: a\r\n\r\n", "200 OK", "ok\n"),
                        ("HEAD /healthz HTTP/1.1\r\n\r\n", "200 OK", ""),
                        ("GET /other HTTP/1.0\r\n\r\n", "404 Not Found", "not found\n"),
                        ("POST /healthz HTTP/1.1\r\n\r\n", "405 Method Not Allowed", "only GET and HEAD\n"),
                        ("nonsense\r\n\r\n", "400 Bad Request", "not an HTTP/1 request\n"),
                    ] {
                        let answer = ask(address, request.as_bytes()).await;
                        assert!(answer.starts_with(&format!("HTTP/1.1 {status}\r\n")), "{request:?} gave {answer:?}");
                        assert!(answer.ends_with(&format!("\r\n\r\n{body}")), "{request:?} gave {answer:?}");
                    }
                    let long = ask(address, &vec![b'a'; MAX_REQUEST_BYTES + 1]).await;
                    assert!(long.starts_with("HTTP/1.1 431 "), "{long:?}");
                };
                future::or(client, server).await;
            },
            async {
                Timer::after(Duration::from_secs(30)).await;
                panic!("the server did not answer in 30 s");
            },
        ));
    }

    async fn ask(address: std::net::SocketAddr, request: &[u8]) -> String {
        let mut stream = TcpStream::connect(address).await.expect("connects");
        stream.write_all(request).await.expect("writes");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.expect("reads to the end");
        answer
    }
}
