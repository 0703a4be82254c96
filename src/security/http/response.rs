//! Parsing of a response from the bytes received so far.
//!
//! Sans-IO.

use zeroize::Zeroizing;

use crate::error::{Error, ErrorKind, Result};

/// Limit of a response's head in bytes, while its end is not received yet.
const MAX_HEAD: usize = 64 * 1024;

/// A complete response.
pub(crate) struct Response {
    pub(crate) status: u16,
    pub(crate) body: Zeroizing<Vec<u8>>,
}

impl Response {
    /// Returns the response if it is complete; `ended` says that the server has closed the
    /// connection.
    pub(super) fn parse(bytes: &[u8], ended: bool) -> Result<Option<Self>> {
        let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") else {
            let is_http = bytes.starts_with(b"HTTP/1.") || b"HTTP/1.".starts_with(bytes.get(..7).unwrap_or(bytes));
            return if is_http && bytes.len() <= MAX_HEAD { Ok(None) } else { Err(foreign()) };
        };
        let (head, rest) = bytes.split_at_checked(end).ok_or_else(foreign)?;
        let head = std::str::from_utf8(head).map_err(|_| foreign())?;
        let mut lines = head.split("\r\n");
        let mut first = lines.next().unwrap_or_default().split(' ');
        let version = first.next().unwrap_or_default();
        let status = first.next().and_then(|status| status.parse::<u16>().ok());
        let status = status.filter(|_| version.starts_with("HTTP/1.")).ok_or_else(foreign)?;
        let headers: Vec<(&str, &str)> =
            lines.filter_map(|line| line.split_once(':')).map(|(name, value)| (name.trim(), value.trim())).collect();
        let header =
            |wanted: &str| headers.iter().find(|(name, _)| name.eq_ignore_ascii_case(wanted)).map(|(_, value)| *value);
        let body = rest.get(4..).unwrap_or_default();
        if (100..200).contains(&status) {
            // An interim response is followed by the final one.
            return Self::parse(body, ended);
        }
        let chunked =
            header("transfer-encoding").is_some_and(|coding| coding.to_ascii_lowercase().ends_with("chunked"));
        let body = if status == 204 || status == 304 {
            Some(Zeroizing::default())
        } else if chunked {
            unchunked(body)?
        } else if let Some(length) = header("content-length") {
            let length: usize = length.parse().map_err(|_| foreign())?;
            body.get(..length).map(|body| Zeroizing::new(body.to_vec()))
        } else {
            ended.then(|| Zeroizing::new(body.to_vec()))
        };
        Ok(body.map(|body| Self { status, body }))
    }
}

/// Decodes a chunked body; `None` until the last chunk is there.
fn unchunked(mut bytes: &[u8]) -> Result<Option<Zeroizing<Vec<u8>>>> {
    let mut body = Zeroizing::new(Vec::with_capacity(bytes.len()));
    loop {
        let Some(end) = bytes.windows(2).position(|window| window == b"\r\n") else { return Ok(None) };
        let size = bytes.get(..end).and_then(|line| std::str::from_utf8(line).ok()).ok_or_else(foreign)?;
        let size = size.split(';').next().unwrap_or_default().trim();
        let size = usize::from_str_radix(size, 16).map_err(|_| foreign())?;
        let data = bytes.get(end + 2..).unwrap_or_default();
        if size == 0 {
            return Ok(Some(body));
        }
        let Some(chunk) = data.get(..size) else { return Ok(None) };
        body.extend_from_slice(chunk);
        let Some(rest) = data.get(size..).and_then(|rest| rest.get(2..)) else { return Ok(None) };
        bytes = rest;
    }
}

fn foreign() -> Error {
    Error::new(ErrorKind::Protocol, "the response is not HTTP/1.1")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str, ended: bool) -> Option<(u16, String)> {
        let response = Response::parse(text.as_bytes(), ended).unwrap()?;
        Some((response.status, String::from_utf8(response.body.to_vec()).unwrap()))
    }

    #[test]
    fn reads_bodies_by_length_chunks_or_close() {
        let length = "HTTP/1.1 200 OK\r\ncontent-LENGTH: 2\r\n\r\nhi!";
        assert_eq!(parsed(length, false), Some((200, "hi".to_owned())));
        assert_eq!(parsed(&length[..length.len() - 2], false), None);
        let chunked = "HTTP/1.1 401 No\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n3;x=y\r\n, a\r\n0\r\n\r\n";
        assert_eq!(parsed(chunked, false), Some((401, "hi, a".to_owned())));
        for cut in 0..chunked.len() - 4 {
            assert_eq!(parsed(&chunked[..cut], false), None, "{cut}");
        }
        let until_closed = "HTTP/1.0 200\r\n\r\nall";
        assert_eq!((parsed(until_closed, false), parsed(until_closed, true)), (None, Some((200, "all".to_owned()))));
        assert_eq!(parsed("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 204 x\r\n\r\n", false), Some((204, String::new())));
    }

    #[test]
    fn rejects_bytes_that_are_not_http() {
        for bytes in [
            &b"SSH-2.0-x\r\n"[..],
            b"HTTP/2 200\r\n\r\n",
            b"HTTP/1.1 abc\r\n\r\n",
            b"HTTP/1.1 200\r\ncontent-length: -1\r\n\r\n",
            b"HTTP/1.1 200\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n",
            b"\x15\x03\x03\x00\x02\x02\x16",
            b"HTTP/1.1 200\r\n\xff\r\n\r\n",
        ] {
            let error = Response::parse(bytes, false).err().unwrap();
            assert_eq!(error.kind(), ErrorKind::Protocol);
        }
        let endless = format!("HTTP/1.1 200\r\n{}", "x".repeat(MAX_HEAD));
        assert!(Response::parse(endless.as_bytes(), false).is_err());
    }
}
