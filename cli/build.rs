//! Renders the pages of `docs/` to HTML, which the local server serves under `/docs`.

use std::error::Error;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::{env, fs};

use overseer_pages::Anchors;
use pulldown_cmark::{CowStr, Event, Options, Parser, Tag, TagEnd, html};

/// The pages with which a new reader begins, in order; the others follow by name.
const FIRST: [&str; 3] = ["quickstart.md", "concepts.md", "agents.md"];

fn main() -> Result<(), Box<dyn Error>> {
    let docs = Path::new(&env::var("CARGO_MANIFEST_DIR")?).join("../docs");
    println!("cargo::rerun-if-changed={}", docs.display());
    let mut pages: Vec<PathBuf> =
        fs::read_dir(&docs)?.map(|entry| Ok(entry?.path())).collect::<Result<_, std::io::Error>>()?;
    pages.retain(|path| path.extension().is_some_and(|extension| extension == "md"));
    pages.sort_by_key(|path| {
        (FIRST.iter().position(|first| path.ends_with(first)).unwrap_or(FIRST.len()), path.clone())
    });
    let mut rust = String::from("&[\n");
    for path in pages {
        let name = path.file_stem().and_then(|name| name.to_str()).ok_or("a page's name is not UTF-8")?;
        let page = Page::render(&fs::read_to_string(&path)?);
        let Page { title, summary, html } = page;
        writeln!(rust, "    Page {{ name: {name:?}, title: {title:?}, summary: {summary:?}, html: {html:?} }},")?;
    }
    rust.push_str("]\n");
    fs::write(Path::new(&env::var("OUT_DIR")?).join("docs.rs"), rust)?;
    Ok(())
}

/// A page as HTML.
struct Page {
    title: String,
    /// The text of the first paragraph.
    summary: String,
    html: String,
}

impl Page {
    fn render(markdown: &str) -> Self {
        let events: Vec<Event<'_>> = Parser::new_ext(markdown, Options::ENABLE_TABLES).collect();
        let title = text_between(&events, |tag| matches!(tag, Tag::Heading { .. }));
        let summary = text_between(&events, |tag| matches!(tag, Tag::Paragraph));
        let mut html = String::new();
        html::push_html(&mut html, with_anchors_and_links(events).into_iter());
        // Wide tables scroll on a phone.
        let html = html.replace("<table>", "<div class=\"scroll\"><table>").replace("</table>", "</table></div>");
        Self { title, summary, html }
    }
}

/// The text of the first block whose tag matches.
fn text_between(events: &[Event<'_>], is_start: impl Fn(&Tag<'_>) -> bool) -> String {
    let mut text = String::new();
    let from =
        events.iter().position(|event| matches!(event, Event::Start(tag) if is_start(tag))).unwrap_or(events.len());
    for event in events.iter().skip(from) {
        if let Event::Text(part) | Event::Code(part) = event {
            text.push_str(part);
        } else if matches!(event, Event::SoftBreak) {
            text.push(' ');
        } else if matches!(event, Event::End(TagEnd::Heading(_) | TagEnd::Paragraph)) {
            break;
        }
    }
    text
}

/// Gives headings the anchors that links name, and leads links to the pages as the server serves them. Links to files that
/// the server does not serve become text.
fn with_anchors_and_links(events: Vec<Event<'_>>) -> Vec<Event<'_>> {
    let headings = events.iter().enumerate().filter(|(_, event)| matches!(event, Event::Start(Tag::Heading { .. })));
    let mut anchors = Anchors::default();
    let of_headings =
        headings.map(|(index, _)| anchors.next(&text_between(events.get(index..).unwrap_or_default(), |_| true)));
    let mut anchors = of_headings.collect::<Vec<_>>().into_iter();
    let mut is_linked = true;
    let mut out = Vec::with_capacity(events.len());
    for event in events {
        if let Event::Start(Tag::Heading { level, classes, attrs, .. }) = event {
            let id = anchors.next().map(CowStr::from);
            out.push(Event::Start(Tag::Heading { level, id, classes, attrs }));
        } else if let Event::Start(Tag::Link { link_type, dest_url, title, id }) = event {
            let served = served(&dest_url);
            is_linked = served.is_some();
            let link = |url: String| Event::Start(Tag::Link { link_type, dest_url: url.into(), title, id });
            out.extend(served.map(link));
        } else if matches!(event, Event::End(TagEnd::Link)) && !is_linked {
            is_linked = true;
        } else {
            out.push(event);
        }
    }
    out
}

/// Where the server serves a link's target.
fn served(link: &str) -> Option<String> {
    if link.starts_with('#') || link.contains("://") {
        return Some(link.to_owned());
    }
    let (path, anchor) =
        link.split_once('#').map_or((link, String::new()), |(path, anchor)| (path, format!("#{anchor}")));
    let name = path.strip_suffix(".md").filter(|name| !name.contains('/'))?;
    Some(format!("/docs/{name}{anchor}"))
}
