//! The built-in services by their names on the command line.

use std::fmt;
use std::path::Path;
use std::str::FromStr;

use super::argument::{Invalid, Size, parse_size};
use super::contract::{Memo, Pending, Service, Taken};
use super::http::BODY_MAX;

/// The longest stream of `source:SIZE`: 1 TiB.
const SOURCE_MAX: u64 = 1 << 40;

/// Expands to the part of a service that depends on its kind of argument.
macro_rules! argument {
    (parse $service:ty, $name:literal $given:ident) => {
        $given.is_none().then(|| Ok(<$service>::default()))
    };
    (parse $service:ty, $name:literal $given:ident SIZE($max:expr)) => {
        $given.map(|size| parse_size($name, size, $max).map(<$service>::of_size))
    };
    (parse $service:ty, $name:literal $given:ident PATH) => {
        $given.map(|path| {
            let invalid = |reason| Invalid::File { path: path.to_owned(), reason };
            <$service>::of_file(Path::new(path)).map_err(invalid)
        })
    };

    (show $service:ident $f:ident) => {
        Ok(())
    };
    (show $service:ident $f:ident $kind:ident) => {
        write!($f, ":{}", $service.argument())
    };

    (bound SIZE($max:expr)) => {
        format!(":SIZE (up to {})", Size($max))
    };
    (bound PATH) => {
        ":PATH".to_owned()
    };
    (bound) => {
        String::new()
    };
}

/// Defines [`BuiltIn`]. An argument of the kind SIZE needs `of_size` and `argument` of the service, one of the kind PATH needs
/// `of_file` and `argument`.
macro_rules! services {
    ($(
        #[doc = $help:literal]
        $name:literal $(: $kind:ident $(($max:expr))?)? => $variant:ident($service:ty),
    )+) => {
        /// A built-in service.
        #[derive(Clone, Debug)]
        pub enum BuiltIn {
            $(#[doc = $help] $variant($service),)+
        }

        impl BuiltIn {
            /// The syntax of each service on the command line, and its action.
            pub const HELP: &[(&str, &str)] =
                &[$((concat!($name $(, ":", stringify!($kind))?), $help.trim_ascii()),)+];

            fn parse(name: &str, argument: Option<&str>) -> Option<Result<Self, Invalid>> {
                match name {
                    $($name => argument!(parse $service, $name argument $($kind $(($max))?)?)
                        .map(|service| service.map(Self::$variant)),)+
                    _ => None,
                }
            }

            /// Returns the names of all services with the bounds of their arguments.
            fn known() -> String {
                [$(format!("{}{}", $name, argument!(bound $($kind $(($max))?)?)),)+].join(", ")
            }
        }

        impl fmt::Display for BuiltIn {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                match self {
                    $(Self::$variant(_service) => {
                        f.write_str($name)?;
                        argument!(show _service f $($kind)?)
                    })+
                }
            }
        }

        /// Calls a method of the service.
        macro_rules! dispatch {
            ($self:ident, $inner:ident => $call:expr) => {
                match $self { $(Self::$variant($inner) => $call,)+ }
            };
        }
    };
}

// A new service is one line here.
services! {
    /// accept, then FIN
    "close" => Close(super::close::Close),
    /// accept, then RST
    "reset" => Reset(super::reset::Reset),
    /// accept and read everything, send nothing
    "discard" => Discard(super::discard::Discard),
    /// send the received text back
    "echo" => Echo(super::echo::Echo),
    /// accept and stay open
    "hold" => Hold(super::discard::Discard),
    /// send SIZE bytes, then FIN
    "source": SIZE(SOURCE_MAX) => Source(super::source::Source),
    /// HTTP/1.1 with a body of SIZE bytes
    "http": SIZE(BODY_MAX) => Http(super::http::Http),
    /// HTTP/1.1 with a file's content as the body
    "http-file": PATH => HttpFile(super::http::Http),
}

impl FromStr for BuiltIn {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        let (name, argument) =
            text.split_once(':').map_or((text, None), |(name, argument)| (name, Some(argument)));
        let unknown = || Err(Invalid::Name { name: text.to_owned(), known: Self::known() });
        Self::parse(name, argument).unwrap_or_else(unknown)
    }
}

impl Service for BuiltIn {
    fn on_open(&self, memo: &mut Memo) {
        dispatch!(self, service => service.on_open(memo));
    }

    #[inline]
    fn on_data(&self, memo: &mut Memo, text: &[u8]) -> Taken {
        dispatch!(self, service => service.on_data(memo, text))
    }

    #[inline]
    fn on_acked(&self, memo: &mut Memo, bytes: u64) {
        dispatch!(self, service => service.on_acked(memo, bytes));
    }

    fn on_peer_closed(&self, memo: &mut Memo) {
        dispatch!(self, service => service.on_peer_closed(memo));
    }

    #[inline]
    fn pending(&self, memo: &Memo) -> Pending {
        dispatch!(self, service => service.pending(memo))
    }

    #[inline]
    fn write(&self, memo: &Memo, at: u64, into: &mut [u8]) {
        dispatch!(self, service => service.write(memo, at, into));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::service::contract::Then;
    use crate::service::driver::Conversation;

    fn error(text: &str) -> String {
        text.parse::<BuiltIn>().expect_err(text).to_string()
    }

    #[test]
    fn every_name_is_shown_as_it_is_written() {
        let names = "close reset discard echo hold source:0 source:512 source:100M source:1T http:0 http:1K http:4G \
                     http-file:Cargo.toml";
        for text in names.split_whitespace() {
            assert_eq!(text.parse::<BuiltIn>().expect(text).to_string(), text);
        }
    }

    #[test]
    fn sizes_have_units_of_1024() {
        for (text, bytes) in [
            ("0", 0),
            ("512", 512),
            ("1k", 1024),
            ("1KiB", 1024),
            ("64K", 65_536),
            ("1M", 1 << 20),
            ("1mib", 1 << 20),
            ("100M", 100 << 20),
            ("1G", 1 << 30),
            ("1024G", 1 << 40),
        ] {
            assert_eq!(parse_size("source", text, SOURCE_MAX).expect(text), bytes, "{text}");
        }
        for text in ["", "K", "iB", "1iB", "1KB", "1KK", "1.5M", "-1", "+1", " 1", "1 K", "0x10", "é", "1é"]
        {
            assert!(matches!(parse_size("source", text, SOURCE_MAX), Err(Invalid::Size(_))), "{text:?}");
        }
    }

    #[test]
    fn refusals_say_what_to_write_instead() {
        for text in ["", "closed", "close:", "close:1", "source", "http", "http-file", "Close", "hold "] {
            let line = error(text);
            assert!(line.contains(&format!("`{text}`")) && line.contains("source:SIZE"), "{line}");
            assert!(!line.contains('\n'));
        }
        assert_eq!(
            error("source:x"),
            "`x` is no SIZE: write a number of bytes such as 0, 512, 64K or 1MiB (K = 1024)"
        );
        assert_eq!(error("source:2T"), "source: SIZE is at most 1T, not 2T");
        assert_eq!(error("http:5G"), "http: SIZE is at most 4G, not 5G");
        assert_eq!(error("http:4294967297"), "http: SIZE is at most 4G, not 4294967297");
        assert_eq!(error("http-file:/no/such"), "http-file:/no/such: No such file or directory (os error 2)");
        assert_eq!(error("http-file:/"), "http-file:/: not a regular file");
        assert!(error("source:99999999999999999999T").starts_with("source: SIZE is at most 1T"));
    }

    #[test]
    fn dispatch_reaches_each_service() {
        for (text, len, then) in [
            ("close", 0, Then::Close),
            ("reset", 0, Then::Reset),
            ("discard", 0, Then::CloseAfterPeer),
            ("echo", 2, Then::CloseAfterPeer),
            ("hold", 0, Then::CloseAfterPeer),
            ("source:1K", 1024, Then::Close),
            ("http:1K", 83, Then::Close),
        ] {
            let service: BuiltIn = text.parse().expect(text);
            let mut talk = Conversation::open(&service, 3);
            talk.say(b"\x01\n");
            talk.close();
            let (stream, last) = talk.run();
            assert_eq!((stream.len(), last), (len, then), "{text}");
        }
    }
}
