//! What is asked of whom: address, and the request in the forms of both versions of HTTP.

use std::error::Error;
use std::net::SocketAddr;

use bytes::Bytes;
use http::{Request, Uri};

pub struct Target {
    pub address: SocketAddr,
    /// Head and body of HTTP/1.1.
    pub message: Bytes,
    /// The head of HTTP/2.
    pub head: Request<()>,
    pub body: Bytes,
}

impl Target {
    /// # Errors
    /// When the URL has no plain HTTP address, or a header is none.
    pub async fn new(url: &str, headers: &[String], body: Vec<u8>) -> Result<Self, Box<dyn Error>> {
        let uri: Uri = url.parse()?;
        let authority = uri.authority().filter(|_| uri.scheme_str() == Some("http"));
        let authority = authority.ok_or("the URL has to begin with http:// and a host")?.to_string();
        let host = uri.host().unwrap_or_default();
        let mut found = tokio::net::lookup_host((host, uri.port_u16().unwrap_or(80))).await?;
        let address = found.next().ok_or("the host has no address")?;
        let path = uri.path_and_query().map_or("/", http::uri::PathAndQuery::as_str);
        let mut message = format!("POST {path} HTTP/1.1\r\nhost: {authority}\r\ncontent-length: {}\r\n", body.len());
        let mut head = Request::post(uri.clone()).header("content-length", body.len());
        let given = headers.iter().map(|header| split(header)).collect::<Result<Vec<_>, _>>()?;
        for (name, value) in [("content-type", "application/json")].into_iter().chain(given) {
            message.extend([name, ": ", value, "\r\n"]);
            head = head.header(name, value);
        }
        message.push_str("\r\n");
        let message = [message.as_bytes(), &body].concat();
        Ok(Self { address, message: message.into(), head: head.body(())?, body: body.into() })
    }
}

fn split(header: &str) -> Result<(&str, &str), String> {
    let (name, value) = header.split_once(':').ok_or_else(|| format!("'{header}' is no 'Name: value'"))?;
    Ok((name.trim(), value.trim()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_request_has_its_headers_in_both_forms() {
        let headers = ["Authorization: Bearer k:1".to_owned()];
        let target = Target::new("http://127.0.0.1:81/model/m%3A0/x?y=1", &headers, b"{}".to_vec()).await.unwrap();
        let message = "POST /model/m%3A0/x?y=1 HTTP/1.1\r\nhost: 127.0.0.1:81\r\ncontent-length: 2\r\n\
                       content-type: application/json\r\nAuthorization: Bearer k:1\r\n\r\n{}";
        assert_eq!(target.message, message);
        assert_eq!(target.head.headers()["authorization"], "Bearer k:1");
        assert_eq!(target.address.port(), 81);
    }

    #[tokio::test]
    async fn what_is_no_plain_address_or_header_is_refused() {
        assert!(Target::new("https://127.0.0.1/", &[], Vec::new()).await.is_err());
        assert!(Target::new("http://127.0.0.1/", &["nonsense".to_owned()], Vec::new()).await.is_err());
    }
}
