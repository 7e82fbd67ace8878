//! Initial sequence numbers, RFC 6528: a clock plus a keyed function of the connection's name.

use siphasher::sip::SipHasher24;

use super::SeqNum;
use crate::time::Instant;

/// The secret of RFC 6528's function F, chosen at the start.
#[derive(Clone, Copy)]
pub struct IsnSecret {
    hasher: SipHasher24,
}

impl IsnSecret {
    /// Returns the secret made of 128 random bits.
    #[must_use]
    pub fn new(key: [u64; 2]) -> Self {
        Self { hasher: SipHasher24::new_with_keys(key[0], key[1]) }
    }

    /// Returns the secret made of an endpoint's seed. Its numbers tell nothing of the seed's other uses.
    #[must_use]
    pub fn from_seed(seed: &[u64; 4]) -> Self {
        Self::new([seed[0].rotate_left(32) ^ seed[2], !seed[1] ^ seed[3].rotate_left(16)])
    }

    /// `ISN = M + F(localip, localport, remoteip, remoteport, secret)`; M is a clock of 4 us a tick (RFC 9293 section 3.4.1).
    /// `connection` is the connection's name as bytes, unique to it.
    #[must_use]
    #[inline]
    pub fn isn(&self, connection: &[u8], now: Instant) -> SeqNum {
        SeqNum((now.as_nanos() / 4000) as u32) + self.hasher.hash(connection) as u32
    }
}

impl std::fmt::Debug for IsnSecret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("IsnSecret(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_connection_s_numbers_follow_the_clock_and_two_connections_share_nothing() {
        let secret = IsnSecret::new([1, 2]);
        let at = |name: u32, micros: u64| secret.isn(&name.to_be_bytes(), Instant::from_nanos(micros * 1000));
        assert_eq!(at(7, 4000) - at(7, 0), 1000);
        assert_ne!(at(7, 0), at(8, 0));
        assert_ne!(at(7, 0), IsnSecret::new([1, 3]).isn(&[0, 0, 0, 7], Instant::ZERO));
    }
}
