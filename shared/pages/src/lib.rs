//! The frame and the stylesheet of every HTML page: consent, playground, documentation. Pages have no scripts and load nothing.

use std::fmt::Write as _;

/// The stylesheet, for light and dark schemes and for phones.
const STYLE: &str = include_str!("style.css");

/// How wide a page may become.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Width {
    /// For a few sentences and a form.
    Narrow,
    /// For tables and long texts.
    Wide,
}

/// A whole HTML document around `body`, which is HTML. `title` is text, without the product's name.
#[must_use]
pub fn document(title: &str, width: Width, body: &str) -> String {
    let class = if width == Width::Wide { " class=\"wide\"" } else { "" };
    let title = escape(title);
    format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\
         <title>{title} · Overseer</title><style>{STYLE}</style></head>\n<body{class}>{body}</body></html>\n"
    )
}

/// The content security policy of a page that loads and runs nothing, and that no other page can frame. `form_action` says
/// where its forms may lead, such as `'self'`; `None` sets no rule, because browsers apply it to redirects after a form as well.
#[must_use]
pub fn content_security_policy(form_action: Option<&str>) -> String {
    let mut policy =
        "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; frame-ancestors 'none'".to_owned();
    if let Some(target) = form_action {
        // Writing to a string cannot fail.
        let _ = write!(policy, "; form-action {target}");
    }
    policy
}

/// Escapes text for HTML, between tags and in quotes. Characters that change the direction of text become U+FFFD, because they
/// could disguise a name.
#[must_use]
pub fn escape(text: &str) -> String {
    text.chars().fold(String::with_capacity(text.len()), |mut escaped, letter| {
        match letter {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => escaped.push('\u{fffd}'),
            plain => escaped.push(plain),
        }
        escaped
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escaped_text_has_no_markup() {
        assert_eq!(escape("<a b=\"c\">&'d'"), "&lt;a b=&quot;c&quot;&gt;&amp;&#39;d&#39;");
    }

    #[test]
    fn escaped_text_keeps_its_direction() {
        assert_eq!(escape("d\u{202e}e"), "d\u{fffd}e");
    }

    #[test]
    fn title_is_escaped() {
        assert!(document("<b>", Width::Narrow, "").contains("<title>&lt;b&gt; · Overseer</title>"));
    }
}
