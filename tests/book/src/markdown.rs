//! A page of Markdown as far as checks want to know it: anchors, links, blocks of code with the comment before them.

use std::collections::HashMap;
use std::ops::Range;

use mdbook_markdown::pulldown_cmark::{CodeBlockKind, Event, Tag, TagEnd};
use mdbook_markdown::{MarkdownOptions, new_cmark_parser};

/// What a page holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Page {
    /// Anchors of its headings, as mdBook and the forges make them.
    pub anchors: Vec<String>,
    /// Its links and images.
    pub links: Vec<Link>,
    /// Its blocks of code.
    pub fences: Vec<Fence>,
    /// Comments that stand before no block of code, by line.
    pub comments: Vec<(usize, String)>,
}

/// A link or an image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// Line, from 1.
    pub line: usize,
    /// Where it goes, as it is written.
    pub target: String,
}

/// A block of code.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fence {
    /// Line of its beginning, from 1.
    pub line: usize,
    /// The words after the fence, the language first; empty for an indented block.
    pub info: String,
    /// The HTML comment right before it, without its dashes: what a reader does not see.
    pub mark: Option<String>,
    /// What stands in it.
    pub text: String,
}

impl Page {
    /// Reads Markdown.
    #[must_use]
    pub fn read(text: &str) -> Self {
        let mut reader = Reader::default();
        let mut options = MarkdownOptions::default();
        // The anchors are made of what is written.
        options.smart_punctuation = false;
        for (event, range) in new_cmark_parser(text, &options).into_offset_iter() {
            reader.event(event, line_of(text, &range));
        }
        reader.forget_comment();
        reader.page
    }
}

fn line_of(text: &str, range: &Range<usize>) -> usize {
    text.as_bytes().iter().take(range.start).filter(|byte| **byte == b'\n').count() + 1
}

#[derive(Default)]
struct Reader {
    page: Page,
    heading: Option<String>,
    used: HashMap<String, u32>,
    comment: Option<(usize, String)>,
    in_fence: bool,
}

impl Reader {
    fn event(&mut self, event: Event<'_>, line: usize) {
        match event {
            Event::Start(Tag::HtmlBlock) => self.forget_comment(),
            Event::Html(html) => self.html(&html, line),
            Event::End(TagEnd::HtmlBlock) => {}
            Event::Start(Tag::CodeBlock(kind)) => {
                let info = match kind {
                    CodeBlockKind::Fenced(info) => info.into_string(),
                    CodeBlockKind::Indented => String::new(),
                };
                let mark = self.comment.take().map(|(_, comment)| comment);
                self.page.fences.push(Fence { line, info, mark, text: String::new() });
                self.in_fence = true;
            }
            Event::End(TagEnd::CodeBlock) => self.in_fence = false,
            event => {
                self.forget_comment();
                self.inline(event, line);
            }
        }
    }

    fn inline(&mut self, event: Event<'_>, line: usize) {
        match event {
            Event::Start(Tag::Heading { .. }) => self.heading = Some(String::new()),
            Event::End(TagEnd::Heading(_)) => {
                let title = self.heading.take().unwrap_or_default();
                let anchor = self.anchor(&title);
                self.page.anchors.push(anchor);
            }
            Event::Start(Tag::Link { dest_url, .. } | Tag::Image { dest_url, .. }) => {
                self.page.links.push(Link { line, target: dest_url.into_string() });
            }
            Event::Text(text) if self.in_fence => {
                if let Some(fence) = self.page.fences.last_mut() {
                    fence.text.push_str(&text);
                }
            }
            Event::Text(text) | Event::Code(text) => {
                if let Some(heading) = &mut self.heading {
                    heading.push_str(&text);
                }
            }
            _ => {}
        }
    }

    fn html(&mut self, html: &str, line: usize) {
        let comment = html.trim().strip_prefix("<!--").and_then(|html| html.strip_suffix("-->"));
        if let Some(comment) = comment {
            self.comment = Some((line, comment.trim().to_owned()));
        }
    }

    /// A comment that was followed by something else than a block of code.
    fn forget_comment(&mut self) {
        self.page.comments.extend(self.comment.take());
    }

    /// Lowercase, spaces as dashes, no punctuation; a number where it was there before.
    fn anchor(&mut self, title: &str) -> String {
        let kept = |letter: char| match letter {
            letter if letter.is_alphanumeric() || matches!(letter, '_' | '-') => Some(letter),
            letter if letter.is_whitespace() => Some('-'),
            _ => None,
        };
        let anchor: String = title.trim().to_lowercase().chars().filter_map(kept).collect();
        let count = self.used.entry(anchor.clone()).or_default();
        *count += 1;
        match *count {
            1 => anchor,
            count => format!("{anchor}-{}", count - 1),
        }
    }
}
