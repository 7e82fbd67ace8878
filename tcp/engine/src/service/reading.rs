//! Shared by the readers of HTTP requests and responses: the places between two bytes, and the characters of fields (RFC 9110).

/// Defines places: the first is `$first`, each other one more than the place before.
macro_rules! places {
    ($first:expr;) => {};
    ($first:expr; $name:ident $($rest:ident)*) => {
        const $name: u8 = $first;
        $crate::service::reading::places! { $name + 1; $($rest)* }
    };
}
pub(crate) use places;

/// Returns whether the byte may be in a field value (section 5.5).
#[inline]
pub(crate) const fn is_value(byte: u8) -> bool {
    byte >= b' ' && byte != 0x7f || byte == b'\t'
}

/// Returns how many bytes at the start of `text` may be in a field value.
#[inline]
pub(crate) fn count_values(text: &[u8]) -> usize {
    // Without an exit from the inner loop it becomes a few vector instructions.
    let all = |block: &&[u8; 16]| block.iter().fold(true, |all, &byte| all & is_value(byte));
    let blocks = text.as_chunks::<16>().0.iter().take_while(all).count() * 16;
    blocks + text[blocks..].iter().take_while(|&&byte| is_value(byte)).count()
}

/// Returns whether the byte may be in a token (section 5.6.2).
#[inline]
pub(crate) const fn is_token(byte: u8) -> bool {
    const TOKEN: [bool; 256] = {
        let mut table = [false; 256];
        let others = b"!#$%&'*+-.^_`|~";
        let mut i = 0;
        while i < 256 {
            table[i] = (i as u8).is_ascii_alphanumeric();
            i += 1;
        }
        i = 0;
        while i < others.len() {
            table[others[i] as usize] = true;
            i += 1;
        }
        table
    };
    TOKEN[byte as usize]
}
