//! The ways in which a peer's text can be wrong.

/// Why the peer's text is not the expected one, so that the connection is of no more use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Bad {
    /// Text that answers no request: before the first request, or after the end of an HTTP response.
    #[error("text that answers no request")]
    Unasked,
    /// More bytes than the response was to have.
    #[error("more bytes than the response was to have")]
    Oversized,
    /// The peer closed within a response.
    #[error("the peer closed within a response")]
    Short,
    /// The peer closed, or announced that it closes, before the last request was answered.
    #[error("the peer closed before the last request was answered")]
    Unanswered,
    /// The text does not begin like a response of HTTP/1.0 or HTTP/1.1, or switches to another protocol.
    #[error("not a response of HTTP/1.0 or HTTP/1.1")]
    NotHttp,
    /// A line of the header or trailer section is malformed, or folded.
    #[error("malformed HTTP header line")]
    Header,
    /// The header section, a chunk's size or the trailer section is 64 KiB or longer.
    #[error("HTTP header section of 64 KiB or more")]
    HeadTooLong,
    /// `Content-Length` is no number below 2^64, or two different numbers.
    #[error("invalid Content-Length")]
    Length,
    /// `Transfer-Encoding` is not `chunked`.
    #[error("Transfer-Encoding other than chunked")]
    Coding,
    /// A chunk is malformed.
    #[error("malformed chunk")]
    Chunk,
    /// The body of a response is shorter or longer than expected.
    #[error("the body has another length than expected")]
    WrongLength,
}
