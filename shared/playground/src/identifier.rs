//! Identifiers and digests: predictable ids for what the stand-ins create, unpredictable ones for OAuth.

use std::fmt::Write;

use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::digest::{SHA256, digest as hash};
use aws_lc_rs::error::Unspecified;
use aws_lc_rs::rand;
use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;

/// SHA-256. Tokens are stored and looked up only as digests, so neither memory nor timing reveals them.
pub(crate) fn digest(text: &str) -> Vec<u8> {
    hash(&SHA256, text.as_bytes()).as_ref().to_vec()
}

/// Compares secrets of any lengths in constant time.
pub(crate) fn same_secret(left: &str, right: &str) -> bool {
    verify_slices_are_equal(&digest(left), &digest(right)).is_ok()
}

/// 256 random bits, safe in URLs.
pub(crate) fn random() -> Result<String, Unspecified> {
    let mut bytes = [0_u8; 32];
    rand::fill(&mut bytes)?;
    Ok(BASE64_URL_SAFE_NO_PAD.encode(bytes))
}

/// The first `length` hexadecimal digits of the seed's digest.
pub(crate) fn hexadecimal(seed: &str, length: usize) -> String {
    let mut text = String::new();
    for byte in digest(seed) {
        // Writing to a string cannot fail.
        let _ = write!(text, "{byte:02x}");
    }
    text.chars().take(length).collect()
}

/// A version 4 UUID, the same for the same seed.
pub(crate) fn uuid(seed: &str) -> String {
    let digits = hexadecimal(seed, 32);
    let versioned = digits.chars().enumerate().map(|(position, digit)| match position {
        12 => '4',
        16 => '8',
        _ => digit,
    });
    dashed(versioned)
}

/// The canonical form of a UUID with or without dashes, if it is one.
pub(crate) fn canonical_uuid(text: &str) -> Option<String> {
    let digits: String = text.chars().filter(|character| *character != '-').collect();
    let valid = digits.len() == 32 && digits.chars().all(|digit| digit.is_ascii_hexdigit());
    valid.then(|| dashed(digits.to_ascii_lowercase().chars()))
}

fn dashed(digits: impl Iterator<Item = char>) -> String {
    let mut text = String::new();
    for (position, digit) in digits.enumerate() {
        if matches!(position, 8 | 12 | 16 | 20) {
            text.push('-');
        }
        text.push(digit);
    }
    text
}
