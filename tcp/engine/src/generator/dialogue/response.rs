//! Reads one response after the other, with a state of 20 bytes: HTTP/1.0 and HTTP/1.1 (RFC 9112), or a number of any bytes.
//!
//! A response may be split anywhere, so the state between two bytes has a small number, the place. For the words that matter, the place
//! is the offset in [`WORDS`] of the byte that must come next. Every other place has a number above these offsets. Runs of bytes that
//! need no decision are skipped at once.

use super::bad::Bad;
use crate::service::reading::{count_values, is_token, is_value, places};

/// The words that matter, each with the byte that ends it. An option may also end with its line.
const WORDS: &[u8] = b"HTTP/1.connection:content-length:transfer-encoding:close,keep-alive,chunked,";
const HTTP: u8 = 0;
const CONNECTION: u8 = 7;
const CONTENT_LENGTH: u8 = 18;
const TRANSFER_ENCODING: u8 = 33;
const CLOSE: u8 = 51;
const KEEP_ALIVE: u8 = 57;
const CHUNKED: u8 = 68;
const END: u8 = 76;

places! { END;
    // The status line: MINOR is before the minor version, STATUS before the first digit of the status.
    MINOR VERSION_END STATUS STATUS_SECOND STATUS_THIRD STATUS_END
    // HEADER is before the first byte of a header line. VALUE is within an unknown value, or the reason phrase.
    HEADER OTHER_NAME VALUE LINE_CR
    // `Connection`: OPTION is among white space and commas, OTHER_OPTION within an unknown option, up to the next comma.
    OPTION OTHER_OPTION
    // `Content-Length`: before, within and behind the digits.
    LENGTH LENGTH_DIGITS LENGTH_END
    // `Transfer-Encoding`: before and behind the value.
    CODING CODING_END
    // Behind the CR of the empty line that ends the header section.
    HEAD_CR
    // A chunk (RFC 9112 section 7.1): SIZE is before the first digit of its size, DATA_END behind its last byte.
    SIZE SIZE_DIGITS SIZE_END EXTENSION SIZE_CR DATA_END DATA_CR
    // TRAILER is before the first byte of a trailer line, TRAILERS_CR in the empty line that ends the section.
    TRAILER TRAILER_NAME TRAILER_VALUE TRAILER_CR TRAILERS_CR
    // Within a chunk or a body of known length, of which `left` bytes are to come; within a body that ends with the connection.
    DATA BODY UNTIL_CLOSE
    // Within no response: see the constants of [`Response`].
    NOT_OPEN ENDED FAILED
}

const HAS_LENGTH: u8 = 1;
const IS_CHUNKED: u8 = 1 << 1;
const WANTS_CLOSE: u8 = 1 << 2;
const WANTS_KEEP: u8 = 1 << 3;
const IS_OLD: u8 = 1 << 4;
const IS_INTERIM: u8 = 1 << 5;
const IS_EMPTY: u8 = 1 << 6;
const IS_ERROR: u8 = 1 << 7;

/// The state between two bytes of a response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(Rust, packed(4))]
pub(super) struct Response {
    /// In the header section the status or the content length, later the bytes of a body or chunk that are to come.
    left: u64,
    /// In the header section the number that is being read, later the length of the body as far as it is known.
    body: u64,
    /// Bytes of the header section, or since the end of a chunk.
    count: u16,
    place: u8,
    flags: u8,
}

/// The kind of a whole response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Answer {
    /// Whether the status is neither 2xx nor 3xx.
    pub(super) is_error: bool,
    /// Whether the peer closes after the response.
    pub(super) is_last: bool,
}

type Read = Result<Option<Answer>, Bad>;

impl Response {
    /// The state before an HTTP response.
    pub(super) const HTTP: Self = Self { left: 0, body: 0, count: 0, place: HTTP, flags: 0 };
    /// The state of a connection that is not established.
    pub(super) const NOT_OPEN: Self = Self { place: NOT_OPEN, ..Self::HTTP };
    /// The state after the peer's FIN.
    pub(super) const ENDED: Self = Self { place: ENDED, ..Self::HTTP };
    /// The state after a failure: further text is ignored.
    pub(super) const FAILED: Self = Self { place: FAILED, ..Self::HTTP };

    /// The longest header section, with those of interim responses: one byte less than 64 KiB. It bounds chunk sizes and trailers, too.
    pub(super) const HEAD_MAX: u16 = u16::MAX;

    /// Returns the state before a response of `bytes` bytes, which is not zero.
    pub(super) const fn of_bytes(bytes: u64) -> Self {
        Self { left: bytes, body: bytes, place: BODY, ..Self::HTTP }
    }

    pub(super) const fn is_open(&self) -> bool {
        self.place != NOT_OPEN
    }

    pub(super) const fn has_ended(&self) -> bool {
        self.place == ENDED
    }

    pub(super) const fn has_failed(&self) -> bool {
        self.place == FAILED
    }

    /// Returns whether a byte of the response was read.
    pub(super) const fn has_begun(&self) -> bool {
        self.count > 0 || self.left != self.body
    }

    /// Reads up to the end of the response, or all bytes. Returns how many. `expect` is the required length of the body.
    #[inline]
    pub(super) fn read(&mut self, text: &[u8], expect: Option<u64>) -> Result<(usize, Option<Answer>), Bad> {
        let mut read = 0;
        while read < text.len() {
            let rest = &text[read..];
            let answer = if matches!(self.place, DATA..=UNTIL_CLOSE) {
                let (taken, answer) = self.body(rest.len() as u64, expect)?;
                read += taken as usize;
                answer
            } else {
                let skipped = self.skip(rest);
                read += skipped;
                let Some(&byte) = rest.get(skipped) else { break };
                read += 1;
                self.step(byte, expect)?
            };
            if answer.is_some() {
                return Ok((read, answer));
            }
        }
        Ok((read, None))
    }

    /// Returns the kind of the response that ends with the peer's FIN.
    pub(super) fn end(&self, expect: Option<u64>) -> Result<Answer, Bad> {
        match self.place {
            UNTIL_CLOSE => self.check(self.body, expect).map(|()| self.answer()),
            _ if self.has_begun() => Err(Bad::Short),
            _ => Err(Bad::Unanswered),
        }
    }

    /// Reads those of `bytes` bytes that belong to the body, and returns how many.
    #[inline]
    fn body(&mut self, bytes: u64, expect: Option<u64>) -> Result<(u64, Option<Answer>), Bad> {
        if self.place == UNTIL_CLOSE {
            self.body = self.body.saturating_add(bytes);
            self.check_so_far(expect)?;
            return Ok((bytes, None));
        }
        let taken = bytes.min(self.left);
        self.left -= taken;
        if self.left > 0 {
            return Ok((taken, None));
        }
        if self.place == BODY {
            return Ok((taken, Some(self.answer())));
        }
        self.place = DATA_END;
        self.count = 0;
        Ok((taken, None))
    }

    /// Reads bytes that need no decision, as far as the bound allows, and returns how many. These are most of a header section.
    #[inline]
    fn skip(&mut self, text: &[u8]) -> usize {
        let text = &text[..text.len().min(usize::from(Self::HEAD_MAX - self.count))];
        let skipped = match self.place {
            CONNECTION..END => {
                // The next bytes of the word. `step` reads its end.
                let word = &WORDS[usize::from(self.place)..];
                let same = |(byte, word): &(&u8, &u8)| {
                    byte.to_ascii_lowercase() == **word && !matches!(word, b':' | b',')
                };
                let same = text.iter().zip(word).take_while(same).count();
                self.place += same as u8;
                same
            }
            OTHER_NAME | TRAILER_NAME => text.iter().take_while(|&&byte| is_token(byte)).count(),
            VALUE | TRAILER_VALUE | EXTENSION => count_values(text),
            _ => 0,
        };
        self.count += skipped as u16;
        skipped
    }

    /// Reads one byte outside a body. Returns the response's kind if it ends with this byte.
    #[inline]
    fn step(&mut self, byte: u8, expect: Option<u64>) -> Read {
        if matches!(self.place, NOT_OPEN..=FAILED) {
            return Err(Bad::Unasked);
        }
        self.count = self.count.checked_add(1).ok_or(Bad::HeadTooLong)?;
        match self.place {
            HTTP..CONNECTION | MINOR..=STATUS_THIRD => self.status_line_byte(byte)?,
            SIZE..=DATA_CR => self.chunk_byte(byte, expect)?,
            TRAILER..=TRAILERS_CR => return self.trailer_byte(byte),
            HEADER | HEAD_CR if byte == b'\n' => return self.body_follows(expect),
            _ => self.header_byte(byte)?,
        }
        Ok(None)
    }

    /// Reads a byte of the status line up to the status (RFC 9112 section 4).
    #[inline]
    fn status_line_byte(&mut self, byte: u8) -> Result<(), Bad> {
        self.place = match (self.place, byte) {
            (HTTP..CONNECTION, _) if byte == WORDS[usize::from(self.place)] => {
                if byte == b'.' {
                    MINOR
                } else {
                    self.place + 1
                }
            }
            (MINOR, b'0') => {
                self.flags |= IS_OLD;
                VERSION_END
            }
            // A higher minor version counts as the highest known one (RFC 9110 section 2.5).
            (MINOR, b'1'..=b'9') => VERSION_END,
            (VERSION_END, b' ') => STATUS,
            (STATUS..=STATUS_THIRD, b'0'..=b'9') => {
                self.left = self.left * 10 + u64::from(byte - b'0');
                if self.place == STATUS_THIRD {
                    self.status()?;
                }
                self.place + 1
            }
            _ => return Err(Bad::NotHttp),
        };
        Ok(())
    }

    /// Sets the flag of the status.
    fn status(&mut self) -> Result<(), Bad> {
        self.flags |= match self.left {
            // No request asks for another protocol.
            101 => return Err(Bad::NotHttp),
            100..=199 => IS_INTERIM,
            204 | 304 => IS_EMPTY,
            200..=399 => 0,
            _ => IS_ERROR,
        };
        self.left = 0;
        Ok(())
    }

    /// Reads a byte of the header section, RFC 9112 section 5. A bare LF ends a line too (section 2.2). Folded lines are malformed.
    #[inline]
    fn header_byte(&mut self, byte: u8) -> Result<(), Bad> {
        self.place = match (self.place, byte) {
            (STATUS_END, b' ') => VALUE,
            (LINE_CR, b'\n') => HEADER,
            (STATUS_END | VALUE | LENGTH_END | CODING_END, b'\r') => LINE_CR,
            (STATUS_END | VALUE | LENGTH_END | CODING_END, b'\n') => HEADER,
            (VALUE, _) if is_value(byte) => VALUE,

            (HEADER, b'\r') => HEAD_CR,
            (HEADER, b'c' | b'C') => CONNECTION + 1,
            (HEADER, b't' | b'T') => TRANSFER_ENCODING + 1,
            (HEADER, _) if is_token(byte) => OTHER_NAME,
            (CONNECTION..CLOSE | OTHER_NAME, _) => self.after_name_byte(byte)?,

            (OPTION | CLOSE..CHUNKED | OTHER_OPTION, _) => self.after_option_byte(byte)?,
            (LENGTH..=LENGTH_END, _) => self.after_length_byte(byte)?,
            (CODING | CHUNKED..END | CODING_END, _) => self.after_coding_byte(byte)?,
            _ => return Err(Bad::Header),
        };
        Ok(())
    }

    /// Returns the place behind a byte of a field name, or behind the colon.
    #[inline]
    fn after_name_byte(&self, byte: u8) -> Result<u8, Bad> {
        // Here `connection` and `content-length` part.
        const CON: u8 = CONNECTION + 3;
        let place = self.place;
        let is_next = place < CLOSE && byte.to_ascii_lowercase() == WORDS[usize::from(place)];
        Ok(match (place + 1, byte) {
            (CONTENT_LENGTH, b':') => OPTION,
            (TRANSFER_ENCODING, b':') => LENGTH,
            (CLOSE, b':') => CODING,
            (_, b':') => VALUE,
            (_, b't' | b'T') if place == CON => CONTENT_LENGTH + 4,
            (next, _) if is_next => next,
            _ if is_token(byte) => OTHER_NAME,
            // White space before the colon, or a line without a colon.
            _ => return Err(Bad::Header),
        })
    }

    /// Returns the place behind a byte of the list in `Connection` (RFC 9110 section 7.6.1).
    #[inline]
    fn after_option_byte(&mut self, byte: u8) -> Result<u8, Bad> {
        let place = self.place;
        if matches!(byte, b',' | b' ' | b'\t' | b'\r' | b'\n') {
            self.flags |= match place + 1 {
                KEEP_ALIVE => WANTS_CLOSE,
                CHUNKED => WANTS_KEEP,
                _ => 0,
            };
        }
        Ok(match byte {
            b',' => OPTION,
            b'\r' => LINE_CR,
            b'\n' => HEADER,
            b' ' | b'\t' if place == OPTION => OPTION,
            b'c' | b'C' if place == OPTION => CLOSE + 1,
            b'k' | b'K' if place == OPTION => KEEP_ALIVE + 1,
            _ if place < END && byte.to_ascii_lowercase() == WORDS[usize::from(place)] => place + 1,
            _ if is_value(byte) => OTHER_OPTION,
            _ => return Err(Bad::Header),
        })
    }

    /// Returns the place behind a byte of `Content-Length`, which may be a list of equal numbers (RFC 9110 section 8.6).
    #[inline]
    fn after_length_byte(&mut self, byte: u8) -> Result<u8, Bad> {
        Ok(match (self.place, byte) {
            (LENGTH | LENGTH_END, b' ' | b'\t') => self.place,
            (LENGTH, b'0'..=b'9') => {
                self.body = u64::from(byte - b'0');
                LENGTH_DIGITS
            }
            (LENGTH_DIGITS, b'0'..=b'9') => {
                let digit = u64::from(byte - b'0');
                let tens = self.body.checked_mul(10).ok_or(Bad::Length)?;
                self.body = tens.checked_add(digit).ok_or(Bad::Length)?;
                LENGTH_DIGITS
            }
            (LENGTH_END, b',') => LENGTH,
            (LENGTH_DIGITS, b',' | b' ' | b'\t' | b'\r' | b'\n') => {
                if self.has(HAS_LENGTH) && self.left != self.body {
                    return Err(Bad::Length);
                }
                self.left = self.body;
                self.flags |= HAS_LENGTH;
                match byte {
                    b',' => LENGTH,
                    b'\r' => LINE_CR,
                    b'\n' => HEADER,
                    _ => LENGTH_END,
                }
            }
            _ => return Err(Bad::Length),
        })
    }

    /// Returns the place behind a byte of `Transfer-Encoding`. The request names none, so only `chunked` is allowed (RFC 9112 section 7).
    #[inline]
    fn after_coding_byte(&mut self, byte: u8) -> Result<u8, Bad> {
        Ok(match (self.place, byte) {
            (CODING | CODING_END, b' ' | b'\t') => self.place,
            (CODING, b'c' | b'C') if !self.has(IS_CHUNKED) => CHUNKED + 1,
            (CHUNKED..END, b' ' | b'\t' | b'\r' | b'\n') if self.place + 1 == END => {
                self.flags |= IS_CHUNKED;
                match byte {
                    b'\r' => LINE_CR,
                    b'\n' => HEADER,
                    _ => CODING_END,
                }
            }
            (CHUNKED..END, _)
                if byte != b',' && byte.to_ascii_lowercase() == WORDS[usize::from(self.place)] =>
            {
                self.place + 1
            }
            _ => return Err(Bad::Coding),
        })
    }

    /// Decides at the end of the header section how the body is delimited (RFC 9112 section 6.3).
    fn body_follows(&mut self, expect: Option<u64>) -> Read {
        if self.has(IS_INTERIM) {
            *self = Self { count: self.count, ..Self::HTTP };
            return Ok(None);
        }
        self.body = 0;
        match (self.has(IS_EMPTY), self.has(IS_CHUNKED), self.has(HAS_LENGTH)) {
            (true, ..) => {}
            (_, true, _) => {
                self.left = 0;
                self.place = SIZE;
                return Ok(None);
            }
            (_, _, true) => self.body = self.left,
            _ => {
                self.flags |= WANTS_CLOSE;
                self.place = UNTIL_CLOSE;
                return Ok(None);
            }
        }
        self.check(self.body, expect)?;
        self.place = BODY;
        Ok((self.body == 0).then(|| self.answer()))
    }

    /// Reads a byte of a chunk's size and extensions, or behind its data (RFC 9112 section 7.1).
    #[inline]
    fn chunk_byte(&mut self, byte: u8, expect: Option<u64>) -> Result<(), Bad> {
        self.place = match (self.place, byte) {
            (SIZE | SIZE_DIGITS, b'0'..=b'9' | b'a'..=b'f' | b'A'..=b'F') => {
                let digit = char::from(byte).to_digit(16).map_or(0, u64::from);
                let sixteens = self.left.checked_mul(16).ok_or(Bad::Chunk)?;
                self.left = sixteens + digit;
                SIZE_DIGITS
            }
            (SIZE_DIGITS | SIZE_END, b' ' | b'\t') => SIZE_END,
            (SIZE_DIGITS | SIZE_END, b';') => EXTENSION,
            (EXTENSION, _) if is_value(byte) => EXTENSION,
            (SIZE_DIGITS | SIZE_END | EXTENSION, b'\r') => SIZE_CR,
            (SIZE_DIGITS | SIZE_END | EXTENSION | SIZE_CR, b'\n') => {
                self.body = self.body.checked_add(self.left).ok_or(Bad::Chunk)?;
                self.check_so_far(expect)?;
                if self.left == 0 { TRAILER } else { DATA }
            }
            (DATA_END, b'\r') => DATA_CR,
            (DATA_END | DATA_CR, b'\n') => SIZE,
            _ => return Err(Bad::Chunk),
        };
        if self.place == TRAILER {
            self.check(self.body, expect)?;
        }
        Ok(())
    }

    /// Reads a byte of the trailer section (RFC 9112 section 7.1.2), and ignores the fields.
    #[inline]
    fn trailer_byte(&mut self, byte: u8) -> Read {
        self.place = match (self.place, byte) {
            (TRAILER | TRAILERS_CR, b'\n') => return Ok(Some(self.answer())),
            (TRAILER, b'\r') => TRAILERS_CR,
            (TRAILER_NAME, b':') => TRAILER_VALUE,
            (TRAILER | TRAILER_NAME, _) if is_token(byte) => TRAILER_NAME,
            (TRAILER_VALUE, b'\r') => TRAILER_CR,
            (TRAILER_VALUE | TRAILER_CR, b'\n') => TRAILER,
            (TRAILER_VALUE, _) if is_value(byte) => TRAILER_VALUE,
            _ => return Err(Bad::Header),
        };
        Ok(None)
    }

    const fn has(&self, flag: u8) -> bool {
        self.flags & flag != 0
    }

    const fn answer(&self) -> Answer {
        // RFC 9112 section 9.3.
        let is_last = self.has(WANTS_CLOSE) || (self.has(IS_OLD) && !self.has(WANTS_KEEP));
        Answer { is_error: self.has(IS_ERROR), is_last }
    }

    /// Checks the length of a whole body. An error's body may have any length.
    fn check(&self, bytes: u64, expect: Option<u64>) -> Result<(), Bad> {
        match expect {
            Some(expect) if !self.has(IS_ERROR) && bytes != expect => Err(Bad::WrongLength),
            _ => Ok(()),
        }
    }

    /// Checks that the body so far is not too long.
    fn check_so_far(&self, expect: Option<u64>) -> Result<(), Bad> {
        match expect {
            Some(expect) if self.body > expect => self.check(self.body, Some(expect)),
            _ => Ok(()),
        }
    }
}
