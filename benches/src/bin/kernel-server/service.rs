//! The services of the server, by name, and their answers.

use std::str::FromStr;

use synmill_benches::http::response;

/// The default bytes of the body under `reset-half`.
const HALF_BODY: usize = 64;

/// The treatment of every connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Service {
    /// FIN at once.
    Close,
    /// RST at once.
    Reset,
    /// RST at once for every second connection, FIN for the others.
    ResetHalfAtOnce,
    /// A response to every request; the bytes of its body.
    Http(usize),
    /// RST to the request of every second connection, a response to the others; the bytes of its body.
    ResetHalf(usize),
    /// An answer that is no HTTP to every request.
    Garbage,
    /// So many bytes at once, then FIN.
    Source(usize),
    /// Each byte back.
    Echo,
    /// Neither text nor FIN.
    Silent,
}

impl FromStr for Service {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let size =
            |text: &str| text.parse().map_err(|_| format!("{text:?} is not a size of a body, in bytes"));
        match text.split_once(':').map_or((text, None), |(name, rest)| (name, Some(rest))) {
            ("close", None) => Ok(Self::Close),
            ("reset", None) => Ok(Self::Reset),
            ("http", Some(body)) => size(body).map(Self::Http),
            ("source", Some(bytes)) => size(bytes).map(Self::Source),
            ("reset-half", None) => Ok(Self::ResetHalf(HALF_BODY)),
            ("reset-half", Some("close")) => Ok(Self::ResetHalfAtOnce),
            ("reset-half", Some(rest)) => match rest.split_once(':') {
                Some(("http", body)) => size(body).map(Self::ResetHalf),
                _ => Err("half of what? reset-half:close or reset-half:http:SIZE".into()),
            },
            ("garbage", None) => Ok(Self::Garbage),
            ("echo", None) => Ok(Self::Echo),
            ("silent", None) => Ok(Self::Silent),
            _ => {
                Err("it is one of close, http:SIZE, source:SIZE, echo, reset, reset-half, garbage, silent"
                    .into())
            }
        }
    }
}

/// Returns the answer to a request; `closes` says that it is the last one on its connection.
pub(crate) fn answer(service: Service, closes: bool) -> Vec<u8> {
    match service {
        Service::Http(body_len) | Service::ResetHalf(body_len) => response(body_len, closes),
        Service::Garbage => b"\x00\xff\r\n\r\nthis is no response\r\n\r\n".to_vec(),
        Service::Source(bytes) => vec![b'x'; bytes],
        _ => Vec::new(),
    }
}
