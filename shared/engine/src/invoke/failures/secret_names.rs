//! Which parameter names mark their value as a secret. The lists err on the side of caution: a value removed without need
//! costs less than a secret stored.

/// A key that contains one of these anywhere looks secret. (`page_token` and `max_tokens` are harmless, but match as well.)
const SECRET_PARTS: [&str; 33] = [
    "password",
    "passwd",
    "passphrase",
    "passcode",
    "secret",
    "token",
    "apikey",
    "accesskey",
    "accountkey",
    "privatekey",
    "sharedkey",
    "signingkey",
    "encryptionkey",
    "masterkey",
    "licensekey",
    "sshkey",
    "credential",
    "authorization",
    "authcode",
    "bearer",
    "cookie",
    "sessionid",
    "connectionstring",
    "verificationcode",
    "recoverycode",
    "backupcode",
    "onetimecode",
    "securitycode",
    "cardnumber",
    "creditcard",
    "accountnumber",
    "routingnumber",
    "socialsecurity",
];

/// A key with one of these as a whole word looks secret. Within longer words they are often harmless: `shipping` has a `pin`.
const SECRET_WORDS: [&str; 16] =
    ["pass", "pwd", "pw", "pin", "puk", "otp", "totp", "mfa", "cvv", "cvc", "pan", "ssn", "iban", "auth", "jwt", "sid"];

/// Whether the value under this key is likely to be a secret.
pub(crate) fn looks_secret(key: &str) -> bool {
    let letters: String = key.chars().filter(char::is_ascii_alphanumeric).map(|c| c.to_ascii_lowercase()).collect();
    SECRET_PARTS.iter().any(|part| letters.contains(part))
        || words(key).iter().any(|word| SECRET_WORDS.contains(&word.as_str()))
}

/// The words of a key in lower case: `userPin`, `user-pin` and `USER_PIN` have two.
fn words(key: &str) -> Vec<String> {
    let mut words = vec![String::new()];
    let mut after_lowercase = false;
    for character in key.chars() {
        let splits = !character.is_ascii_alphanumeric() || (character.is_ascii_uppercase() && after_lowercase);
        if splits {
            words.push(String::new());
        }
        if let Some(word) = words.last_mut().filter(|_| character.is_ascii_alphabetic()) {
            word.push(character.to_ascii_lowercase());
        }
        after_lowercase = character.is_ascii_lowercase() || character.is_ascii_digit();
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secret_name_is_recognised_in_every_spelling() {
        for name in [
            "password",
            "Pass-Word",
            "user_password",
            "PASSWD",
            "pass",
            "pwd",
            "clientSecret",
            "api_key",
            "X-API-Key",
            "APIKEY",
            "accessKeyId",
            "authorization",
            "Proxy-Authorization",
            "Set-Cookie",
            "session_id",
            "page_token",
            "maxTokens",
            "pin",
            "userPin",
            "USER_PIN",
            "pin2",
            "otp",
            "otpCode",
            "cvv",
            "card_cvc",
            "ssn",
            "iban",
            "debitIBAN",
            "auth",
            "credentials",
            "private.key",
            "id_token",
            "card number",
            "smtpAuth",
        ] {
            assert!(looks_secret(name), "{name}");
        }
    }

    #[test]
    fn harmless_name_does_not_look_secret() {
        for name in [
            "channel",
            "text",
            "shipping",
            "author",
            "expand",
            "side",
            "key",
            "name",
            "value",
            "opinion",
            "keyboard",
            "passenger",
            "",
            "é",
        ] {
            assert!(!looks_secret(name), "{name}");
        }
    }
}
