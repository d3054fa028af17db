//! A line chart as SVG text with axes, grid and legend, without external libraries or fonts.

use std::fmt::Write as _;

const WIDTH: f64 = 960.0;
const HEIGHT: f64 = 540.0;
const LEFT: f64 = 84.0;
const RIGHT: f64 = 28.0;
const BOTTOM: f64 = 64.0;
/// Top of the legend, below title and subtitle.
const LEGEND_TOP: f64 = 70.0;
const LEGEND_ROW: f64 = 20.0;
/// Space between the legend and the plot.
const LEGEND_GAP: f64 = 6.0;
/// Approximate width of a character of the legend. The exact width is known only to the renderer.
const CHARACTER: f64 = 7.0;
const SWATCH: f64 = 30.0;
const LEGEND_SPACE: f64 = 22.0;

/// Colours suitable for colour-blind readers (Okabe and Ito), dark enough for thin lines on white.
const COLOURS: [&str; 7] = ["#0072b2", "#d55e00", "#009e73", "#b5508f", "#c98a00", "#3a9bd9", "#444444"];

/// Dash patterns, for more series than colours.
const DASHES: [&str; 3] = ["", "7 4", "2 3"];

/// Approximate number of ticks of a linear axis.
const TICKS: f64 = 6.0;

/// A chart.
#[derive(Clone, Debug)]
pub(super) struct Chart {
    pub(super) title: String,
    pub(super) subtitle: String,
    pub(super) x: Axis,
    pub(super) y: Axis,
    pub(super) series: Vec<Series>,
}

/// An axis.
#[derive(Clone, Debug)]
pub(super) struct Axis {
    pub(super) label: String,
    pub(super) log: bool,
    /// Whether the axis is logarithmic. Linear axes start at zero.
    pub(super) name: fn(f64) -> String,
}

/// A series of one or more lines.
#[derive(Clone, Debug)]
pub(super) struct Series {
    pub(super) name: String,
    pub(super) lines: Vec<Vec<(f64, f64)>>,
    /// Whether points are marked.
    pub(super) marked: bool,
}

/// Mapping from values to positions in the chart.
struct Scale {
    log: bool,
    low: f64,
    high: f64,
    from: f64,
    to: f64,
}

impl Scale {
    /// Creates a scale that covers the values. A logarithmic scale has whole decades only if it spans several.
    fn around(values: impl Iterator<Item = f64>, log: bool, from: f64, to: f64) -> Self {
        let usable = |v: &f64| v.is_finite() && (!log || *v > 0.0);
        let (mut low, mut high) =
            values.filter(usable).fold((f64::INFINITY, f64::NEG_INFINITY), |(l, h), v| (l.min(v), h.max(v)));
        if low > high {
            (low, high) = (1.0, 10.0);
        }
        if log {
            // The ends are 1, 2 or 5 times a power of ten.
            (low, high) = (nice_below(low), nice_below(high * 0.999_999));
            high = next_nice(high);
            if high <= low {
                high = low * 10.0;
            }
        } else {
            low = low.min(0.0);
            high = if high <= low { low + 1.0 } else { low + (high - low) * 1.05 };
        }
        Self { log, low, high, from, to }
    }

    fn place(&self, value: f64) -> f64 {
        let part = if self.log {
            (value.max(self.low).ln() - self.low.ln()) / (self.high.ln() - self.low.ln())
        } else {
            (value - self.low) / (self.high - self.low)
        };
        self.from + part * (self.to - self.from)
    }

    fn ticks(&self) -> Vec<f64> {
        let mut ticks = Vec::new();
        if self.log {
            let decades = (self.high / self.low).log10();
            let mut at = nice_below(self.low);
            while at <= self.high * 1.000_001 {
                let is_power = (at.log10() - at.log10().round()).abs() < 1e-9;
                if at >= self.low * 0.999_999 && (is_power || decades < 2.5) {
                    ticks.push(at);
                }
                at = next_nice(at);
            }
        } else {
            let step = next_nice(nice_below((self.high - self.low) / TICKS));
            let first = (self.low / step).ceil() as i64;
            ticks.extend((first..).map(|i| i as f64 * step).take_while(|at| *at <= self.high));
        }
        ticks
    }
}

/// Returns the largest number of the form 1, 2 or 5 times a power of ten that is not above `value`.
fn nice_below(value: f64) -> f64 {
    let power = 10f64.powf((value * 1.000_000_1).log10().floor());
    let digit = value * 1.000_000_1 / power;
    power
        * if digit >= 5.0 {
            5.0
        } else if digit >= 2.0 {
            2.0
        } else {
            1.0
        }
}

/// Returns the next number of this form after a result of [`nice_below`].
fn next_nice(value: f64) -> f64 {
    let power = 10f64.powf((value * 1.000_000_1).log10().floor());
    match (value / power).round() as i64 {
        1 => 2.0 * power,
        2 => 5.0 * power,
        _ => 10.0 * power,
    }
}

impl Chart {
    /// Returns the chart as SVG.
    pub(super) fn svg(&self) -> String {
        let (legend, rows) = self.legend();
        let top = LEGEND_TOP + rows * LEGEND_ROW + LEGEND_GAP;
        let points = || self.series.iter().flat_map(|series| series.lines.iter().flatten());
        let x = Scale::around(points().map(|p| p.0), self.x.log, LEFT, WIDTH - RIGHT);
        let y = Scale::around(points().map(|p| p.1), self.y.log, HEIGHT - BOTTOM, top);
        let mut out = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" width=\"{WIDTH}\" height=\"{HEIGHT}\" \
             font-family=\"system-ui, -apple-system, 'Segoe UI', 'DejaVu Sans', Helvetica, Arial, sans-serif\" font-size=\"13\" fill=\"#333333\">\n\
             <rect width=\"{WIDTH}\" height=\"{HEIGHT}\" fill=\"#ffffff\"/>\n"
        );
        let (title, subtitle) = (escaped(&self.title), escaped(&self.subtitle));
        _ = writeln!(
            out,
            "<text x=\"{LEFT}\" y=\"32\" font-size=\"19\" font-weight=\"600\" fill=\"#111111\">{title}</text>"
        );
        _ = writeln!(out, "<text x=\"{LEFT}\" y=\"53\" fill=\"#666666\">{subtitle}</text>");
        out.push_str(&legend);
        self.axes(&mut out, &x, &y, top);
        for (nth, series) in self.series.iter().enumerate() {
            series.draw(&mut out, nth, &x, &y);
        }
        out.push_str("</svg>\n");
        out
    }

    fn axes(&self, out: &mut String, x: &Scale, y: &Scale, top: f64) {
        let (bottom, right) = (HEIGHT - BOTTOM, WIDTH - RIGHT);
        out.push_str("<g stroke=\"#e4e4e4\" stroke-width=\"1\">\n");
        for at in x.ticks().into_iter().map(|tick| x.place(tick)) {
            _ = writeln!(out, "<line x1=\"{at:.1}\" y1=\"{top:.1}\" x2=\"{at:.1}\" y2=\"{bottom:.1}\"/>");
        }
        for at in y.ticks().into_iter().map(|tick| y.place(tick)) {
            _ = writeln!(out, "<line x1=\"{LEFT}\" y1=\"{at:.1}\" x2=\"{right:.1}\" y2=\"{at:.1}\"/>");
        }
        _ = writeln!(
            out,
            "</g>\n<path d=\"M{LEFT} {top:.1}V{bottom:.1}H{right:.1}\" fill=\"none\" stroke=\"#777777\"/>"
        );
        for tick in x.ticks() {
            let (at, below, name) = (x.place(tick), bottom + 20.0, escaped(&(self.x.name)(tick)));
            _ = writeln!(out, "<text x=\"{at:.1}\" y=\"{below:.1}\" text-anchor=\"middle\">{name}</text>");
        }
        for tick in y.ticks() {
            let (at, before, name) = (y.place(tick) + 4.5, LEFT - 9.0, escaped(&(self.y.name)(tick)));
            _ = writeln!(out, "<text x=\"{before:.1}\" y=\"{at:.1}\" text-anchor=\"end\">{name}</text>");
        }
        let (middle, below) = (f64::midpoint(LEFT, right), HEIGHT - 16.0);
        let label = escaped(&self.x.label);
        _ = writeln!(
            out,
            "<text x=\"{middle:.1}\" y=\"{below:.1}\" text-anchor=\"middle\" fill=\"#666666\">{label}</text>"
        );
        let (middle, label) = (f64::midpoint(top, bottom), escaped(&self.y.label));
        _ = writeln!(
            out,
            "<text transform=\"translate(20 {middle:.1}) rotate(-90)\" text-anchor=\"middle\" fill=\"#666666\">{label}</text>"
        );
    }

    /// Draws the names of the series with samples of their lines. Returns the text and its height.
    fn legend(&self) -> (String, f64) {
        let mut out = String::new();
        let (mut at, mut row) = (LEFT, 0.0);
        for (nth, series) in self.series.iter().enumerate() {
            let width = SWATCH + series.name.chars().count() as f64 * CHARACTER;
            if at > LEFT && at + width > WIDTH - RIGHT {
                (at, row) = (LEFT, row + 1.0);
            }
            let y = LEGEND_TOP + row * LEGEND_ROW;
            let (line, text, name) = (y + 1.0, y + 5.5, escaped(&series.name));
            let (to, style) = (at + SWATCH - 8.0, style(nth));
            _ = writeln!(out, "<path d=\"M{at:.1} {line:.1}H{to:.1}\" {style}/>");
            _ = writeln!(out, "<text x=\"{:.1}\" y=\"{text:.1}\">{name}</text>", at + SWATCH);
            at += width + LEGEND_SPACE;
        }
        (out, row + 1.0)
    }
}

impl Series {
    fn draw(&self, out: &mut String, nth: usize, x: &Scale, y: &Scale) {
        // Several lines of one series are translucent, so that none hides the others.
        let opacity = if self.lines.len() > 1 { " stroke-opacity=\"0.65\"" } else { "" };
        _ = writeln!(out, "<g {}{opacity}><title>{}</title>", style(nth), escaped(&self.name));
        for line in &self.lines {
            let mut path = String::new();
            for (i, (px, py)) in line.iter().enumerate() {
                let command = if i == 0 { 'M' } else { 'L' };
                _ = write!(path, "{command}{:.1} {:.1}", x.place(*px), y.place(*py));
            }
            if !path.is_empty() {
                _ = writeln!(out, "<path d=\"{path}\"/>");
            }
            // A single point has no line, so mark it.
            if self.marked || line.len() == 1 {
                for (px, py) in line {
                    let (cx, cy) = (x.place(*px), y.place(*py));
                    _ = writeln!(out, "<circle cx=\"{cx:.1}\" cy=\"{cy:.1}\" r=\"3.5\" fill=\"#ffffff\"/>");
                }
            }
        }
        out.push_str("</g>\n");
    }
}

fn style(nth: usize) -> String {
    let (colour, dash) = (COLOURS[nth % COLOURS.len()], DASHES[nth / COLOURS.len() % DASHES.len()]);
    let dash = if dash.is_empty() { String::new() } else { format!(" stroke-dasharray=\"{dash}\"") };
    format!("fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\" stroke-linejoin=\"round\"{dash}")
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// Fails unless every tag is closed, in order, and every attribute is quoted. Returns the names of the elements.
    pub(in crate::report::plots) fn elements(text: &str) -> Vec<String> {
        let mut names = Vec::new();
        let mut open: Vec<String> = Vec::new();
        let mut rest = text;
        while let Some((between, tag_on)) = rest.split_once('<') {
            assert!(!between.contains('>'), "a stray > in {between:?}");
            let (tag, after) = tag_on.split_once('>').expect("a tag ends");
            rest = after;
            if let Some(name) = tag.strip_prefix('/') {
                assert_eq!(open.pop().as_deref(), Some(name), "closed in order");
                continue;
            }
            let name = tag.split([' ', '/']).next().expect("a name").to_owned();
            assert!(tag.matches('"').count().is_multiple_of(2), "{tag}");
            assert_eq!(tag.matches('=').count(), tag.matches("=\"").count(), "{tag}");
            if !tag.ends_with('/') {
                open.push(name.clone());
            }
            names.push(name);
        }
        assert!(open.is_empty(), "left open: {open:?}");
        for (at, _) in text.match_indices('&') {
            assert!(
                text[at..].starts_with(['&']) && text[at..].split_once(';').is_some_and(|(e, _)| e.len() < 6)
            );
        }
        names
    }

    fn chart(series: Vec<Series>, log: bool) -> Chart {
        let axis = |label: &str| Axis { label: label.into(), log, name: |v| format!("{v}") };
        Chart {
            title: "a < b & \"c\"".into(),
            subtitle: "all of it".into(),
            x: axis("time"),
            y: axis("rate"),
            series,
        }
    }

    fn line(name: &str, points: &[(f64, f64)]) -> Series {
        Series { name: name.into(), lines: vec![points.to_vec()], marked: false }
    }

    #[test]
    fn a_chart_is_well_formed_and_has_series_names_and_axes() {
        let text =
            chart(vec![line("one", &[(0.0, 1.0), (1.0, 3.0)]), line("<two>", &[(0.5, 2.0)])], false).svg();
        let elements = elements(&text);
        assert_eq!(elements[0], "svg");
        assert_eq!(elements.iter().filter(|name| *name == "g").count(), 3, "the grid and two series");
        assert_eq!(elements.iter().filter(|name| *name == "circle").count(), 1, "a single point is marked");
        for said in ["a &lt; b &amp; &quot;c&quot;", ">one<", "&lt;two&gt;", ">time<", ">rate<", "all of it"]
        {
            assert!(text.contains(said), "{said}\n{text}");
        }
        assert!(!text.contains("NaN") && !text.contains("inf"));
    }

    #[test]
    fn every_point_is_within_the_axes_whatever_the_values() {
        for log in [false, true] {
            for points in
                [vec![], vec![(0.0, 0.0)], vec![(1.0, 7.0), (1e6, 7.0)], vec![(3.0, 1e-3), (4.0, 1e12)]]
            {
                let text = chart(vec![line("a", &points)], log).svg();
                elements(&text);
                assert!(!text.contains("NaN") && !text.contains("inf"), "{points:?}\n{text}");
                let scale = Scale::around(points.iter().map(|p| p.1), log, 0.0, 100.0);
                for (_, y) in &points {
                    assert!((-0.01..=100.01).contains(&scale.place(*y)), "{points:?} {log}");
                }
            }
        }
    }

    #[test]
    fn ticks_are_round_numbers() {
        let scale = |values: [f64; 2], log| Scale::around(values.into_iter(), log, 0.0, 1.0).ticks();
        assert_eq!(scale([0.0, 10.0], false), [0.0, 2.0, 4.0, 6.0, 8.0, 10.0]);
        let close = |found: Vec<f64>, wanted: &[f64]| {
            assert_eq!(found.len(), wanted.len(), "{found:?}");
            for (found, wanted) in found.iter().zip(wanted) {
                assert!((found / wanted - 1.0).abs() < 1e-6, "{found} {wanted}");
            }
        };
        close(scale([3.0, 70.0], true), &[2.0, 5.0, 10.0, 20.0, 50.0, 100.0]);
        close(scale([1.0, 1e6], true), &[1.0, 10.0, 100.0, 1e3, 1e4, 1e5, 1e6]);
    }

    #[test]
    fn more_series_than_colours_have_different_dashes() {
        assert_ne!(style(0), style(COLOURS.len()));
        assert_ne!(style(COLOURS.len()), style(2 * COLOURS.len()));
    }
}
