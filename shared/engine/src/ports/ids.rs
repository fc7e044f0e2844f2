//! Random bytes for ids, versions and key secrets, injected so that tests are exact.

use std::fmt::Write as _;

use aws_lc_rs::digest;

/// Makes random values.
pub trait Ids: Send + Sync {
    /// Fills `bytes` with values that nobody can guess.
    fn fill(&self, bytes: &mut [u8]);
}

impl dyn Ids {
    /// `bytes` random bytes as small hexadecimal digits, two for each.
    pub fn hex(&self, bytes: usize) -> String {
        let mut random = vec![0; bytes];
        self.fill(&mut random);
        hex(&random)
    }
}

/// Small hexadecimal digits, two for each byte.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        // Writing to a String cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// The SHA-256 of `bytes` in small hexadecimal digits: what stands for a secret that has enough random bits of its own.
pub(crate) fn sha256(bytes: &[u8]) -> String {
    hex(digest::digest(&digest::SHA256, bytes).as_ref())
}

/// The operating system's generator, by way of aws-lc.
#[derive(Debug, Clone, Copy, Default)]
pub struct RandomIds;

impl Ids for RandomIds {
    #[expect(clippy::expect_used, reason = "without randomness no secret is safe: stopping is the only right answer")]
    fn fill(&self, bytes: &mut [u8]) {
        aws_lc_rs::rand::fill(bytes).expect("the operating system gives random bytes");
    }
}
