//! The texts of UPnP-IGD, as far as a port mapping needs them: search, description, SOAP, and HTTP around them. Pure; what a device
//! says is looked through for few fields, and never believed to be more than those.
use core::net::{Ipv4Addr, SocketAddrV4};

/// Where devices are searched (`UPnP` Device Architecture 1.3.2).
pub(crate) const SEARCH_AT: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(239, 255, 255, 250), 1900);
/// Devices answer at some time within so many seconds.
pub(crate) const SEARCH_SPREAD_S: u8 = 2;

/// What is searched for: either answers at the same address.
pub(crate) const SEARCHED: [&str; 2] =
    ["urn:schemas-upnp-org:device:InternetGatewayDevice:1", "urn:schemas-upnp-org:device:InternetGatewayDevice:2"];
/// Services that map ports, best first.
const SERVICES: [&str; 3] = [
    "urn:schemas-upnp-org:service:WANIPConnection:2",
    "urn:schemas-upnp-org:service:WANIPConnection:1",
    "urn:schemas-upnp-org:service:WANPPPConnection:1",
];

/// `http://address:port/path` at a device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Url {
    pub(crate) at: SocketAddrV4,
    pub(crate) path: String,
}

/// A service of a device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Service {
    pub(crate) name: &'static str,
    pub(crate) control: Url,
}

/// The question for devices of this kind.
pub(crate) fn search(kind: &str) -> String {
    format!("M-SEARCH * HTTP/1.1\r\nHOST: {SEARCH_AT}\r\nMAN: \"ssdp:discover\"\r\nMX: {SEARCH_SPREAD_S}\r\nST: {kind}\r\n\r\n")
}

/// Where a device that answers describes itself.
pub(crate) fn location(answer: &str) -> Option<Url> {
    let (head, rest) = answer.split_once("\r\n")?;
    (head.starts_with("HTTP/1.1 200") || head.starts_with("HTTP/1.0 200")).then_some(())?;
    Url::parse(header(rest, "location")?)
}

/// The services of a description that map ports, best first; only those at the device's own address.
pub(crate) fn services(description: &str, described_at: &Url) -> Vec<Service> {
    let base = element(description, "URLBase").and_then(Url::parse).filter(|base| base.at.ip() == described_at.at.ip());
    let base = base.unwrap_or_else(|| described_at.clone());
    let blocks = || description.split("<service>").skip(1).filter_map(|rest| rest.split_once("</service>").map(|(block, _)| block));
    let find = |name: &'static str| {
        let mut of_name = blocks().filter(move |block| element(block, "serviceType") == Some(name));
        let control = base.join(&element(of_name.next()?, "controlURL")?.replace("&amp;", "&"))?;
        (control.at.ip() == base.at.ip()).then_some(Service { name, control })
    };
    SERVICES.into_iter().filter_map(find).collect()
}

/// A request to a service.
pub(crate) fn call(service: &Service, action: &str, arguments: &[(&str, String)]) -> String {
    let fields = arguments.iter().fold(String::new(), |fields, (name, value)| fields + &format!("<{name}>{value}</{name}>"));
    let body = format!(
        "<?xml version=\"1.0\"?>\r\n<s:Envelope xmlns:s=\"http://schemas.xmlsoap.org/soap/envelope/\" \
         s:encodingStyle=\"http://schemas.xmlsoap.org/soap/encoding/\"><s:Body><u:{action} xmlns:u=\"{name}\">{fields}</u:{action}>\
         </s:Body></s:Envelope>\r\n",
        name = service.name,
    );
    let head = format!(
        "Content-Type: text/xml; charset=\"utf-8\"\r\nSOAPAction: \"{}#{action}\"\r\nContent-Length: {}\r\n",
        service.name,
        body.len()
    );
    request("POST", &service.control, &head) + &body
}

/// A request for a page.
pub(crate) fn get(url: &Url) -> String {
    request("GET", url, "")
}

fn request(method: &str, url: &Url, more: &str) -> String {
    format!("{method} {} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n{more}\r\n", url.path, url.at)
}

/// The text of the first element of this name, without what is around it.
pub(crate) fn element<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    let from = text.find(&format!("<{name}>"))? + name.len() + 2;
    let len = text[from..].find(&format!("</{name}>"))?;
    Some(text[from..from + len].trim())
}

/// An answer of HTTP, when all of it is here: status and body. `is_over`: nothing more will come.
pub(crate) fn answer(bytes: &[u8], is_over: bool) -> Option<(u16, String)> {
    let text = String::from_utf8_lossy(bytes);
    let (head, body) = text.split_once("\r\n\r\n")?;
    let (first, headers) = head.split_once("\r\n").unwrap_or((head, ""));
    let status = first.strip_prefix("HTTP/1.").and_then(|rest| rest.get(2..5))?.parse().ok()?;
    let is_chunked = header(headers, "transfer-encoding").is_some_and(|coding| coding.eq_ignore_ascii_case("chunked"));
    let body = if is_chunked {
        let (body, is_whole) = chunks(body);
        (is_whole || is_over).then_some(body)?
    } else {
        let whole = header(headers, "content-length").and_then(|len| len.parse::<usize>().ok());
        (whole.is_some_and(|whole| body.len() >= whole) || is_over).then(|| body.to_owned())?
    };
    Some((status, body))
}

/// The body of these chunks, and whether the last one is among them (RFC 9112 7.1).
fn chunks(mut rest: &str) -> (String, bool) {
    let mut body = String::new();
    while let Some((size, more)) = rest.split_once("\r\n") {
        let Ok(size) = usize::from_str_radix(size.split(';').next().unwrap_or_default().trim(), 16) else { break };
        if size == 0 {
            return (body, true);
        }
        let Some(chunk) = more.get(..size) else { break };
        body.push_str(chunk);
        rest = more.get(size..).and_then(|rest| rest.strip_prefix("\r\n")).unwrap_or_default();
    }
    (body, false)
}

fn header<'a>(headers: &'a str, name: &str) -> Option<&'a str> {
    let mut fields = headers.split("\r\n").filter_map(|line| line.split_once(':'));
    fields.find(|(field, _)| field.trim().eq_ignore_ascii_case(name)).map(|(_, value)| value.trim())
}

impl Url {
    /// None: not HTTP, not at an address of IPv4, or with something in it that does not belong into a request.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let rest = text.strip_prefix("http://")?;
        let (at, path) = rest.find('/').map_or((rest, "/"), |slash| rest.split_at(slash));
        let at = at.parse().or_else(|_| at.parse().map(|ip| SocketAddrV4::new(ip, 80))).ok()?;
        is_plain(path).then(|| Self { at, path: path.to_owned() })
    }

    /// A reference on a page that is here.
    fn join(&self, reference: &str) -> Option<Self> {
        if reference.contains("://") {
            return Self::parse(reference);
        }
        let folder = self.path.rfind('/').map_or("/", |slash| &self.path[..=slash]);
        let path = if reference.starts_with('/') { reference.to_owned() } else { format!("{folder}{reference}") };
        is_plain(&path).then_some(Self { at: self.at, path })
    }
}

fn is_plain(path: &str) -> bool {
    path.bytes().all(|byte| byte.is_ascii_graphic())
}

#[cfg(test)]
mod tests {
    use super::*;

    const DESCRIPTION: &str = "<?xml version=\"1.0\"?><root><device><serviceList><service>\
        <serviceType>urn:schemas-upnp-org:service:Layer3Forwarding:1</serviceType><controlURL>/ctl/L3F</controlURL></service>\
        </serviceList><deviceList><device><service>\n<serviceType>urn:schemas-upnp-org:service:WANPPPConnection:1</serviceType>\
        <controlURL>ppp?a=1&amp;b=2</controlURL></service><service>\
        <serviceType>urn:schemas-upnp-org:service:WANIPConnection:1</serviceType>\n<controlURL> /ctl/IPConn </controlURL></service>";

    fn url(text: &str) -> Url {
        Url::parse(text).expect("a URL")
    }

    #[test]
    fn an_answer_tells_where_the_description_is() {
        let answer = "HTTP/1.1 200 OK\r\nCACHE-CONTROL: max-age=120\r\nLocation: http://192.168.1.1:5000/rootDesc.xml\r\n\r\n";
        assert_eq!(location(answer), Some(url("http://192.168.1.1:5000/rootDesc.xml")));
        for none in [
            "",
            "HTTP/1.1 404 no\r\nLocation: http://192.168.1.1/\r\n\r\n",
            "NOTIFY * HTTP/1.1\r\nLocation: http://192.168.1.1/\r\n\r\n",
            "HTTP/1.1 200 OK\r\nLocation: https://192.168.1.1/\r\n\r\n",
            "HTTP/1.1 200 OK\r\nLocation: http://router.example/\r\n\r\n",
            "HTTP/1.1 200 OK\r\nLocation: http://192.168.1.1/a b\r\n\r\n",
        ] {
            assert_eq!(location(none), None, "{none:?}");
        }
    }

    #[test]
    fn services_that_map_ports_are_found_best_first_at_the_device_alone() {
        let at = url("http://192.168.1.1:5000/dev/desc.xml");
        let found: Vec<_> = services(DESCRIPTION, &at).into_iter().map(|service| (service.name, service.control)).collect();
        assert_eq!(
            found,
            [(SERVICES[1], url("http://192.168.1.1:5000/ctl/IPConn")), (SERVICES[2], url("http://192.168.1.1:5000/dev/ppp?a=1&b=2"))]
        );
        let based = DESCRIPTION.replace("<root>", "<root><URLBase>http://192.168.1.1:49152/x/</URLBase>");
        assert_eq!(services(&based, &at)[1].control, url("http://192.168.1.1:49152/x/ppp?a=1&b=2"));
        let elsewhere = DESCRIPTION.replace("/ctl/IPConn", "http://203.0.113.9/ctl");
        assert_eq!(services(&elsewhere, &at).len(), 1, "only what is at the device");
        let elsewhere = DESCRIPTION.replace("<root>", "<root><URLBase>http://203.0.113.9/</URLBase>");
        assert_eq!(services(&elsewhere, &at)[0].control, url("http://192.168.1.1:5000/ctl/IPConn"));
        assert_eq!(services("<service><serviceType>", &at), []);
        assert_eq!(services(&DESCRIPTION.replace("ppp?", "ppp\r\nHost: x"), &at).len(), 1, "nothing gets into a request");
    }

    #[test]
    fn an_answer_of_http_is_whole_by_length_by_chunks_or_at_the_end() {
        let plain = b"HTTP/1.1 500 Internal Server Error\r\nContent-Length: 5\r\n\r\nhello";
        assert_eq!(answer(plain, false), Some((500, "hello".to_owned())));
        let chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3;x=y\r\nhel\r\n2\r\nlo\r\n0\r\n\r\n";
        assert_eq!(answer(chunked, false), Some((200, "hello".to_owned())));
        for bytes in [&plain[..], chunked] {
            for len in 0..bytes.len() - 4 {
                assert_eq!(answer(&bytes[..len], false), None, "{len} bytes");
            }
        }
        assert_eq!(answer(b"HTTP/1.0 200 OK\r\n\r\nhello", true), Some((200, "hello".to_owned())));
        for none in [&b""[..], b"HTTP/1.1", b"nonsense\r\n\r\n", b"HTTP/1.1 abc\r\n\r\n", b"\xff\xfe\r\n\r\n"] {
            assert_eq!(answer(none, true), None);
        }
        // a length that lies
        assert_eq!(answer(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffff\r\nx", true), Some((200, String::new())));
    }

    #[test]
    fn a_call_names_service_and_action() {
        let service = services(DESCRIPTION, &url("http://192.168.1.1:5000/")).remove(0);
        let text = call(&service, "GetExternalIPAddress", &[("NewX", "7".to_owned())]);
        let (head, body) = text.split_once("\r\n\r\n").expect("a head and a body");
        assert!(head.starts_with("POST /ctl/IPConn HTTP/1.1\r\nHost: 192.168.1.1:5000\r\n"), "{head}");
        assert!(head.contains("SOAPAction: \"urn:schemas-upnp-org:service:WANIPConnection:1#GetExternalIPAddress\""), "{head}");
        assert!(head.contains(&format!("Content-Length: {}", body.len())), "{head}");
        assert_eq!(element(body, "NewX"), Some("7"));
    }
}
