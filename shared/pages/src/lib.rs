//! The frame and the stylesheet of every HTML page: consent, playground, documentation. Pages have no scripts and load nothing.

use std::collections::BTreeSet;

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
    let form_action = form_action.map(|target| format!("form-action {target}; ")).unwrap_or_default();
    format!("default-src 'none'; style-src 'unsafe-inline'; {form_action}base-uri 'none'; frame-ancestors 'none'")
}

/// Escapes text for HTML, between tags and in quotes. Characters that change the direction of text, or that have no width,
/// become U+FFFD, because they could disguise a name. The joiners U+200C and U+200D stay: words and emoji need them.
#[must_use]
pub fn escape(text: &str) -> String {
    text.chars().fold(String::with_capacity(text.len()), |mut escaped, letter| {
        match letter {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            '\u{61c}'
            | '\u{200e}'
            | '\u{200f}'
            | '\u{202a}'..='\u{202e}'
            | '\u{2066}'..='\u{2069}'
            | '\u{ad}'
            | '\u{180e}'
            | '\u{200b}'
            | '\u{2060}'..='\u{2064}'
            | '\u{feff}' => escaped.push('\u{fffd}'),
            plain => escaped.push(plain),
        }
        escaped
    })
}

/// The anchors of one page's headings, as GitHub makes them.
#[derive(Debug, Default)]
pub struct Anchors(BTreeSet<String>);

impl Anchors {
    /// The anchor of the page's next heading. A heading that the page has had already gets a number.
    pub fn next(&mut self, heading: &str) -> String {
        let lower = heading.trim().to_lowercase();
        let kept = lower.chars().filter(|c| c.is_alphanumeric() || " -_".contains(*c));
        let slug: String = kept.map(|c| if c == ' ' { '-' } else { c }).collect();
        let mut anchor = slug.clone();
        let mut count = 0;
        while !self.0.insert(anchor.clone()) {
            count += 1;
            anchor = format!("{slug}-{count}");
        }
        anchor
    }

    /// Whether a heading got this anchor.
    #[must_use]
    pub fn contains(&self, anchor: &str) -> bool {
        self.0.contains(anchor)
    }
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
        for mark in ['\u{61c}', '\u{200f}', '\u{202e}', '\u{2069}'] {
            assert_eq!(escape(&format!("d{mark}e")), "d\u{fffd}e", "{mark:?}");
        }
    }

    #[test]
    fn escaped_text_shows_every_character() {
        for invisible in ['\u{ad}', '\u{200b}', '\u{2060}', '\u{feff}'] {
            assert_eq!(escape(&format!("acme{invisible}corp")), "acme\u{fffd}corp", "{invisible:?}");
        }
    }

    #[test]
    fn escaped_emoji_keeps_its_joiner() {
        assert_eq!(escape("👩\u{200d}🔬"), "👩\u{200d}🔬");
    }

    #[test]
    fn anchors_are_those_of_github() {
        let mut anchors = Anchors::default();
        let of = ["Who may do what?", "`POST /x_y` again", "Who may do what"].map(|heading| anchors.next(heading));
        assert_eq!(of, ["who-may-do-what", "post-x_y-again", "who-may-do-what-1"]);
    }

    #[test]
    fn title_is_escaped() {
        assert!(document("<b>", Width::Narrow, "").contains("<title>&lt;b&gt; · Overseer</title>"));
    }
}
