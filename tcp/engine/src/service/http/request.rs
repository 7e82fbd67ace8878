//! Reads requests byte by byte (RFC 9112), with a state of 27 bits.
//!
//! A request may be split anywhere, so the state between two bytes is one small number, the place. For the words that matter, the
//! place is the offset in [`WORDS`] of the byte that must come next. Every other place has a number above these offsets.

use crate::names::named;
use crate::service::reading::{is_token, is_value, places};

/// The longest method. A longer one gets 501.
pub(super) const METHOD_MAX: u16 = 64;
/// The longest request target: 8 KiB.
pub(super) const TARGET_MAX: u16 = 8 << 10;
/// The longest header section, with the empty line at its end: one byte less than 16 KiB, so that the count has 14 bits.
pub(super) const HEADERS_MAX: u16 = (16 << 10) - 1;

named! {
    /// The reply to a request, named by its status. A connection's memo keeps its number.
    pub(super) enum Reply {
        /// To GET.
        Get = "200 OK",
        /// To HEAD.
        Head = "200 OK",
        /// To a GET of HTTP/1.0 that asks to keep the connection. The response must confirm it.
        GetKeep = "200 OK",
        /// To a HEAD of HTTP/1.0 that asks to keep the connection. The response must confirm it.
        HeadKeep = "200 OK",
        /// To GET, and the connection closes.
        GetClose = "200 OK",
        /// To HEAD, and the connection closes.
        HeadClose = "200 OK",
        /// The request is malformed.
        BadRequest = "400 Bad Request",
        /// A method other than GET and HEAD.
        MethodNotAllowed = "405 Method Not Allowed\r\nAllow: GET, HEAD",
        /// The request has content.
        ContentTooLarge = "413 Content Too Large",
        /// The target is longer than [`TARGET_MAX`].
        UriTooLong = "414 URI Too Long",
        /// The header section is longer than [`HEADERS_MAX`].
        HeadersTooLarge = "431 Request Header Fields Too Large",
        /// A transfer coding, or a method longer than [`METHOD_MAX`].
        NotImplemented = "501 Not Implemented",
        /// A major version other than 1.
        VersionNotSupported = "505 HTTP Version Not Supported",
    }
}

impl Reply {
    /// Returns whether the connection closes after the reply.
    pub(super) const fn closes(self) -> bool {
        self as u8 >= Self::GetClose as u8
    }

    /// Returns whether the status is 200.
    pub(super) const fn is_success(self) -> bool {
        (self as u8) < Self::BadRequest as u8
    }

    /// Returns whether the body follows the header section.
    pub(super) const fn has_body(self) -> bool {
        matches!(self, Self::Get | Self::GetKeep | Self::GetClose)
    }
}

/// The words that matter, each with the byte that ends it.
const WORDS: &[u8] = b"GET HEAD HTTP/host:connection:content-length:transfer-encoding:close,keep-alive,";
/// The bytes that end words. No word contains one.
const ENDS: &[u8] = b" /:,";
const GET: u8 = 0;
const HEAD: u8 = 4;
const HTTP: u8 = 9;
const HOST: u8 = 14;
const CONNECTION: u8 = 19;
const CONTENT_LENGTH: u8 = 30;
const TRANSFER_ENCODING: u8 = 45;
const CLOSE: u8 = 63;
const KEEP_ALIVE: u8 = 69;
const END: u8 = 80;

/// The words that may begin at one place.
const METHODS: &[u8] = &[GET, HEAD];
const NAMES: &[u8] = &[HOST, CONNECTION, CONTENT_LENGTH, TRANSFER_ENCODING];
const OPTIONS: &[u8] = &[CLOSE, KEEP_ALIVE];

// Before the first byte of the method: zero, as in a new memo.
const START: u8 = GET;

places! { END;
    // START_CR is behind the CR of an empty line before the request. In TARGET the count is 0 before the first byte.
    START_CR OTHER_METHOD TARGET MAJOR DOT MINOR LINE_END LINE_CR
    // HEADER is before the first byte of a header line.
    HEADER OTHER_NAME VALUE VALUE_CR
    // `Connection`: OPTION is among white space and commas, OTHER_OPTION within an unknown option, up to the next comma.
    OPTION OTHER_OPTION
    // `Content-Length`: before the digits, within them while all are zero, and behind them.
    LENGTH LENGTH_ZERO LENGTH_END
    // Behind the CR of the empty line that ends the header section.
    END_CR
    // Behind a request whose response closes the connection: further text is ignored.
    CLOSED
}

const IS_HEAD: u8 = 1;
const IS_OTHER_METHOD: u8 = 1 << 1;
const IS_OLD: u8 = 1 << 2;
const HAS_HOST: u8 = 1 << 3;
const WANTS_CLOSE: u8 = 1 << 4;
const WANTS_KEEP: u8 = 1 << 5;

/// The state between two bytes of a request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Request {
    /// The place, in 7 bits.
    at: u8,
    /// The bytes read of the method, of the target or of the header section, in 14 bits.
    count: u16,
    /// The flags that the bytes so far have set, in 6 bits.
    flags: u8,
}

impl Request {
    /// Bits of [`Request::pack`].
    pub(super) const BITS: u32 = 27;

    /// The state in which further text is ignored.
    pub(super) const CLOSED: Self = Self { at: CLOSED, count: 0, flags: 0 };

    pub(super) fn is_closed(self) -> bool {
        self.at == CLOSED
    }

    /// Returns the state as a number below `1 << Self::BITS`; zero at the start of a request.
    pub(super) fn pack(self) -> u64 {
        u64::from(self.at) | u64::from(self.count) << 7 | u64::from(self.flags) << 21
    }

    /// Returns the state that [`Request::pack`] packed.
    pub(super) fn unpack(bits: u64) -> Self {
        Self { at: (bits & 0x7f) as u8, count: (bits >> 7 & 0x3fff) as u16, flags: (bits >> 21 & 0x3f) as u8 }
    }

    /// Reads up to the byte that ends the request. Returns how many bytes are before it, and the reply. The state is then before that
    /// byte, so that it can be read again. Without a reply, all bytes were read.
    #[inline]
    pub(super) fn read(&mut self, text: &[u8]) -> (usize, Option<Reply>) {
        let mut place = *self;
        let mut read = 0;
        let reply = loop {
            read += place.skip(&text[read..]);
            let Some(&byte) = text.get(read) else { break None };
            match place.step(byte) {
                Ok(next) => place = next,
                Err(reply) => break Some(reply),
            }
            read += 1;
        };
        *self = place;
        (read, reply)
    }

    /// Reads bytes that need no decision, as far as the bounds allow, and returns how many. These are most of a request.
    #[inline]
    fn skip(&mut self, text: &[u8]) -> usize {
        match self.at {
            ..END => {
                // The next bytes of the word. `step` reads its end, and letters of the other case.
                let word = &WORDS[usize::from(self.at)..];
                let same = |(byte, expected): &(&u8, &u8)| byte == expected && !ENDS.contains(byte);
                let n = text.iter().zip(word).take(self.room(HEADERS_MAX)).take_while(same).count();
                self.at += n as u8;
                self.count += n as u16;
                n
            }
            TARGET => self.skip_while(text, TARGET_MAX, |byte| byte.is_ascii_graphic()),
            OTHER_NAME => self.skip_while(text, HEADERS_MAX, is_token),
            VALUE => self.skip_while(text, HEADERS_MAX, is_value),
            CLOSED => text.len(),
            _ => 0,
        }
    }

    #[inline]
    fn skip_while(&mut self, text: &[u8], max: u16, stays: impl Fn(u8) -> bool) -> usize {
        let n = text.iter().take(self.room(max)).take_while(|&&byte| stays(byte)).count();
        self.count += n as u16;
        n
    }

    #[inline]
    fn room(self, max: u16) -> usize {
        usize::from(max.saturating_sub(self.count))
    }

    /// Reads one byte. Returns the state behind it, or the reply if it ends the request.
    #[inline]
    fn step(mut self, byte: u8) -> Result<Self, Reply> {
        if self.at >= HEADER || (HOST..END).contains(&self.at) {
            if self.count == HEADERS_MAX {
                return Err(Reply::HeadersTooLarge);
            }
            self.count += 1;
            self.header_byte(byte)
        } else {
            self.line_byte(byte)
        }
    }

    /// Reads a byte of the request line, RFC 9112 section 3.
    #[inline]
    fn line_byte(mut self, byte: u8) -> Result<Self, Reply> {
        self.at = match (self.at, byte) {
            // Section 2.2: empty lines before a request line are ignored.
            (START, b'\r') => START_CR,
            (START | START_CR, b'\n') => START,
            (START_CR, _) => return Err(Reply::BadRequest),

            (GET..HTTP | OTHER_METHOD, _) => return self.method_byte(byte),

            (TARGET, b' ') if self.count > 0 => HTTP,
            // `skip` has read all bytes of a target within the bound.
            (TARGET, b'!'..=b'~') => return Err(Reply::UriTooLong),

            (HTTP..HOST, _) if byte == WORDS[usize::from(self.at)] => {
                if byte == b'/' {
                    MAJOR
                } else {
                    self.at + 1
                }
            }
            (MAJOR, b'1') => DOT,
            (MAJOR, b'0'..=b'9') => return Err(Reply::VersionNotSupported),
            (DOT, b'.') => MINOR,
            (MINOR, b'0') => {
                self.flags |= IS_OLD;
                LINE_END
            }
            // A higher minor version counts as the highest known one (RFC 9110 section 2.5).
            (MINOR, b'1'..=b'9') => LINE_END,
            (LINE_END, b'\r') => LINE_CR,
            (LINE_END | LINE_CR, b'\n') if self.flags & IS_OTHER_METHOD != 0 => {
                return Err(Reply::MethodNotAllowed);
            }
            (LINE_END | LINE_CR, b'\n') => {
                self.count = 0;
                HEADER
            }
            _ => return Err(Reply::BadRequest),
        };
        Ok(self)
    }

    #[inline]
    fn method_byte(mut self, byte: u8) -> Result<Self, Reply> {
        let known = if self.at == OTHER_METHOD { None } else { follow(self.at, byte, METHODS) };
        if byte == b' ' && self.count > 0 {
            self.flags = match known {
                Some(HEAD) => 0,
                Some(HTTP) => IS_HEAD,
                _ => IS_OTHER_METHOD,
            };
            self.at = TARGET;
            self.count = 0;
        } else if !is_token(byte) {
            return Err(Reply::BadRequest);
        } else if self.count == METHOD_MAX {
            return Err(Reply::NotImplemented);
        } else {
            self.at = known.unwrap_or(OTHER_METHOD);
            self.count += 1;
        }
        Ok(self)
    }

    /// Reads a byte of the header section, RFC 9112 section 5.
    #[inline]
    fn header_byte(mut self, byte: u8) -> Result<Self, Reply> {
        self.at = match (self.at, byte) {
            (HEADER, b'\r') => END_CR,
            (HEADER | END_CR, b'\n') => return Err(self.reply()),
            (HEADER, _) => return self.name_byte(HOST, byte),
            (HOST..CLOSE | OTHER_NAME, _) => return self.name_byte(self.at, byte),

            (VALUE_CR, b'\n') => HEADER,
            (VALUE | LENGTH_ZERO | LENGTH_END, b'\r') => VALUE_CR,
            (VALUE | LENGTH_ZERO | LENGTH_END, b'\n') => HEADER,

            (CLOSE..END | OPTION | OTHER_OPTION, _) => return self.option_byte(byte),

            (LENGTH, b' ' | b'\t') => LENGTH,
            (LENGTH | LENGTH_ZERO, b'0') => LENGTH_ZERO,
            (LENGTH | LENGTH_ZERO, b'1'..=b'9') => return Err(Reply::ContentTooLarge),
            (LENGTH_ZERO | LENGTH_END, b' ' | b'\t') => LENGTH_END,
            _ => return Err(Reply::BadRequest),
        };
        Ok(self)
    }

    /// Reads a byte of a field name, or the colon after it.
    #[inline]
    fn name_byte(mut self, at: u8, byte: u8) -> Result<Self, Reply> {
        let first = self.at == HEADER;
        let known = if at == OTHER_NAME { None } else { follow(at, byte.to_ascii_lowercase(), NAMES) };
        self.at = match (byte, known) {
            (b':', Some(CONNECTION)) => {
                // A second Host is an error (section 3.2).
                if self.flags & HAS_HOST != 0 {
                    return Err(Reply::BadRequest);
                }
                self.flags |= HAS_HOST;
                VALUE
            }
            (b':', Some(CONTENT_LENGTH)) => OPTION,
            (b':', Some(TRANSFER_ENCODING)) => LENGTH,
            (b':', Some(CLOSE)) => return Err(Reply::NotImplemented),
            (b':', _) if !first => VALUE,
            _ if is_token(byte) => known.unwrap_or(OTHER_NAME),
            // White space before the colon, a folded line, or a line without a colon.
            _ => return Err(Reply::BadRequest),
        };
        Ok(self)
    }

    /// Reads a byte of the list in `Connection` (RFC 9110 section 7.6.1).
    #[inline]
    fn option_byte(mut self, byte: u8) -> Result<Self, Reply> {
        let delimits = matches!(byte, b',' | b' ' | b'\t' | b'\r' | b'\n');
        let before = self.at;
        if delimits {
            self.flags |= match before {
                at if at == KEEP_ALIVE - 1 => WANTS_CLOSE,
                at if at == END - 1 => WANTS_KEEP,
                _ => 0,
            };
        }
        self.at = match byte {
            b',' => OPTION,
            b' ' | b'\t' if before == OPTION => OPTION,
            b' ' | b'\t' => OTHER_OPTION,
            b'\r' => VALUE_CR,
            b'\n' => HEADER,
            b'!'..=b'~' | 0x80.. => match before {
                OTHER_OPTION => OTHER_OPTION,
                OPTION => follow(CLOSE, byte.to_ascii_lowercase(), OPTIONS).unwrap_or(OTHER_OPTION),
                at => follow(at, byte.to_ascii_lowercase(), OPTIONS).unwrap_or(OTHER_OPTION),
            },
            _ => return Err(Reply::BadRequest),
        };
        Ok(self)
    }

    /// Returns the reply at the end of the header section.
    fn reply(self) -> Reply {
        let has = |flag| self.flags & flag != 0;
        let (old, keep) = (has(IS_OLD), has(WANTS_KEEP));
        if !old && !has(HAS_HOST) {
            return Reply::BadRequest;
        }
        // RFC 9112 section 9.3.
        match (has(IS_HEAD), has(WANTS_CLOSE) || (old && !keep), old) {
            (false, true, _) => Reply::GetClose,
            (true, true, _) => Reply::HeadClose,
            (false, false, true) => Reply::GetKeep,
            (true, false, true) => Reply::HeadKeep,
            (false, false, false) => Reply::Get,
            (true, false, false) => Reply::Head,
        }
    }
}

/// Returns the place behind `byte`, which comes at a place within one of the words; `None` if no word continues with it. The place
/// behind a word's last byte is the start of the next word.
#[inline]
fn follow(at: u8, byte: u8, words: &[u8]) -> Option<u8> {
    if WORDS[usize::from(at)] == byte {
        return Some(at + 1);
    }
    // Two words may begin alike: `connection` and `content-length`.
    let start = words.iter().rev().find(|&&start| start <= at)?;
    let read = &WORDS[usize::from(*start)..usize::from(at)];
    words.iter().filter(|&&other| other > *start).find_map(|&other| {
        let rest = WORDS[usize::from(other)..].strip_prefix(read)?;
        (rest.first() == Some(&byte)).then_some(other + read.len() as u8 + 1)
    })
}
