//! Just enough SVG for the charts: text, lines, rectangles.

use std::fmt::{Display, Write};

const FONT: &str = "system-ui, sans-serif";
const FONT_SIZE: u32 = 12;

/// The anchor of a text.
#[derive(Clone, Copy, Debug)]
pub(super) enum Anchor {
    Start,
    Middle,
    End,
}

/// A picture under construction; positions count from its upper left corner.
#[derive(Debug)]
pub(super) struct Svg {
    width: f64,
    height: f64,
    body: String,
}

impl Svg {
    pub(super) const fn new(width: f64, height: f64) -> Self {
        Self {
            width,
            height,
            body: String::new(),
        }
    }

    pub(super) fn text(&mut self, (x, y): (f64, f64), anchor: Anchor, text: &str) {
        let anchor = match anchor {
            Anchor::Start => "start",
            Anchor::Middle => "middle",
            Anchor::End => "end",
        };
        let text = escaped(text);
        self.push(format_args!(
            r#"<text x="{x:.1}" y="{y:.1}" text-anchor="{anchor}">{text}</text>"#
        ));
    }

    pub(super) fn title(&mut self, (x, y): (f64, f64), text: &str) {
        let text = escaped(text);
        self.push(format_args!(
            r#"<text x="{x:.1}" y="{y:.1}" font-weight="bold">{text}</text>"#
        ));
    }

    pub(super) fn rect(&mut self, (x, y): (f64, f64), (width, height): (f64, f64), fill: &str) {
        self.push(format_args!(
            r#"<rect x="{x:.1}" y="{y:.1}" width="{width:.1}" height="{height:.1}" fill="{fill}"/>"#
        ));
    }

    /// A thin line of a grid.
    pub(super) fn grid(&mut self, (x1, y1): (f64, f64), (x2, y2): (f64, f64)) {
        self.push(format_args!(
            r##"<line x1="{x1:.1}" y1="{y1:.1}" x2="{x2:.1}" y2="{y2:.1}" stroke="#ddd"/>"##
        ));
    }

    pub(super) fn curve(&mut self, points: &[(f64, f64)], stroke: &str) {
        let points: Vec<_> = points
            .iter()
            .map(|(x, y)| format!("{x:.1},{y:.1}"))
            .collect();
        let points = points.join(" ");
        self.push(format_args!(
            r#"<polyline points="{points}" fill="none" stroke="{stroke}" stroke-width="1.8"/>"#
        ));
    }

    fn push(&mut self, element: impl Display) {
        writeln!(self.body, "{element}").expect("a string takes everything");
    }
}

impl Display for Svg {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (width, height) = (self.width, self.height);
        writeln!(
            f,
            r#"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" font-family="{FONT}" font-size="{FONT_SIZE}">"#
        )?;
        writeln!(
            f,
            r#"<rect width="{width}" height="{height}" fill="white"/>"#
        )?;
        writeln!(f, "{}</svg>", self.body)
    }
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn elements_are_closed_and_text_is_escaped() {
        let mut svg = Svg::new(10.0, 20.0);
        svg.text((1.0, 2.0), Anchor::End, "a < b & c");
        svg.curve(&[(0.0, 1.0), (2.5, 3.25)], "red");
        let text = svg.to_string();
        assert!(text.starts_with(r#"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 10 20""#));
        assert!(text.contains(r#"text-anchor="end">a &lt; b &amp; c</text>"#));
        assert!(text.contains(r#"points="0.0,1.0 2.5,3.2""#), "{text}");
        assert!(text.ends_with("</svg>\n"));
    }
}
