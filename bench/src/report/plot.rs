//! Plots as SVG, whose colours are the page's: light, dark or print.

use std::fmt::Write;

/// Size of a plot in its own units; it is as wide as its place on the page.
const WIDTH: f64 = 720.0;
const HEIGHT: f64 = 300.0;
/// Room for labels.
const LEFT: f64 = 76.0;
const RIGHT: f64 = 14.0;
const TOP: f64 = 12.0;
const BOTTOM: f64 = 52.0;
/// Radius of a point.
const POINT: f64 = 2.6;

/// How values become positions, and which are labelled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scale {
    /// In proportion, from 0.
    Linear,
    /// By their logarithm.
    Log,
    /// Shares of 1 by their nines: 0, 0.9, 0.99...
    Nines,
}

/// One axis.
#[derive(Debug, Clone, Copy)]
pub struct Axis<'a> {
    /// What it is, with its unit.
    pub name: &'a str,
    /// How it is divided.
    pub scale: Scale,
}

/// Values that belong together.
pub struct Series<'a> {
    /// As the legend calls them.
    pub name: &'a str,
    /// Where and how much.
    pub points: Vec<(f64, f64)>,
    /// Whether neighbours are joined by a line.
    pub is_line: bool,
}

/// A value to be marked with a line across.
pub struct Mark {
    /// In the y axis' unit.
    pub at: f64,
    /// What it is.
    pub name: String,
}

/// From which value to which an axis goes, in units of its scale.
#[derive(Debug, Clone, Copy)]
struct Span {
    scale: Scale,
    from: f64,
    to: f64,
}

impl Span {
    fn of(scale: Scale, values: impl Iterator<Item = f64> + Clone) -> Span {
        let scaled = values.map(|value| scaled(scale, value)).filter(|value| value.is_finite());
        let least = scaled.clone().fold(f64::INFINITY, f64::min);
        let most = scaled.fold(f64::NEG_INFINITY, f64::max);
        if !least.is_finite() {
            return Span { scale, from: 0.0, to: 1.0 };
        }
        match scale {
            Scale::Linear => {
                Span { scale, from: least.min(0.0), to: if most > 0.0 { most * 1.05 } else { 1.0 } }
            }
            Scale::Log => {
                let (from, to) = (least.floor(), most.ceil());
                Span { scale, from, to: if to > from { to } else { from + 1.0 } }
            }
            Scale::Nines => Span { scale, from: 0.0, to: most.max(1.0) },
        }
    }

    /// Where a value lies, from 0 to 1.
    fn place(&self, value: f64) -> f64 {
        ((scaled(self.scale, value) - self.from) / (self.to - self.from)).clamp(0.0, 1.0)
    }

    /// Values to be labelled.
    fn ticks(&self) -> Vec<f64> {
        match self.scale {
            Scale::Linear => {
                let step = round_step((self.to - self.from) / 5.0);
                let count = ((self.to - self.from) / step) as u32;
                (0..=count).map(|n| self.from + f64::from(n) * step).collect()
            }
            Scale::Log => (self.from as i32..=self.to as i32).map(|power| 10f64.powi(power)).collect(),
            Scale::Nines => (0..=self.to as i32).map(|nines| 1.0 - 10f64.powi(-nines)).collect(),
        }
    }
}

fn scaled(scale: Scale, value: f64) -> f64 {
    match scale {
        Scale::Linear => value,
        Scale::Log => value.max(1e-9).log10(),
        Scale::Nines => -(1.0 - value).log10(),
    }
}

/// 1, 2 or 5 times a power of ten, at least `least`.
fn round_step(least: f64) -> f64 {
    let power = 10f64.powf(least.log10().floor());
    [1.0, 2.0, 5.0, 10.0]
        .map(|factor| factor * power)
        .into_iter()
        .find(|step| *step >= least)
        .unwrap_or(power)
}

/// A number as people write it: three digits, and a letter for thousands.
pub fn short(value: f64) -> String {
    let (value, letter) = match value.abs() {
        above if above >= 1e9 => (value / 1e9, "G"),
        above if above >= 1e6 => (value / 1e6, "M"),
        above if above >= 1e4 => (value / 1e3, "k"),
        _ => (value, ""),
    };
    let digits = match value.abs() {
        above if above >= 100.0 || above == 0.0 => 0,
        above if above >= 10.0 => 1,
        _ => 2,
    };
    let text = format!("{value:.digits$}");
    let text = if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.') } else { &text };
    format!("{text}{letter}")
}

/// Microseconds with the unit that suits them.
pub fn time(us: f64) -> String {
    match us {
        us if us >= 1e6 => format!("{} s", short(us / 1e6)),
        us if us >= 1e3 => format!("{} ms", short(us / 1e3)),
        us => format!("{} µs", short(us)),
    }
}

fn label(axis: &Axis<'_>, value: f64) -> String {
    match axis.scale {
        Scale::Nines if value == 0.0 => "p0".to_owned(),
        Scale::Nines => format!("p{}", short_percent(value)),
        Scale::Log => time(value),
        Scale::Linear => short(value),
    }
}

fn short_percent(share: f64) -> String {
    let text = format!("{:.6}", share * 100.0);
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// What may stand in an HTML text or attribute.
pub fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

/// One plot with its legend. `title` is for those who do not see it.
pub fn plot(title: &str, x: &Axis<'_>, y: &Axis<'_>, series: &[Series<'_>], marks: &[Mark]) -> String {
    let points = || series.iter().flat_map(|series| series.points.iter().copied());
    let across = Span::of(x.scale, points().map(|point| point.0));
    let up = Span::of(y.scale, points().map(|point| point.1).chain(marks.iter().map(|mark| mark.at)));
    let at_x = |value: f64| LEFT + across.place(value) * (WIDTH - LEFT - RIGHT);
    let at_y = |value: f64| HEIGHT - BOTTOM - up.place(value) * (HEIGHT - TOP - BOTTOM);
    let (bottom, right) = (HEIGHT - BOTTOM, WIDTH - RIGHT);
    let mut svg = format!(
        "<figure><svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" aria-label=\"{}\">\n",
        escape(title)
    );
    for tick in across.ticks() {
        let (at, text) = (at_x(tick), label(x, tick));
        let _ = writeln!(
            svg,
            "<line class=grid x1={at:.1} x2={at:.1} y1={TOP} y2={bottom} /><text class=tick x={at:.1} y={:.1} text-anchor=middle>{text}</text>",
            bottom + 19.0
        );
    }
    for tick in up.ticks() {
        let (at, text) = (at_y(tick), label(y, tick));
        let _ = writeln!(
            svg,
            "<line class=grid x1={LEFT} x2={right} y1={at:.1} y2={at:.1} /><text class=tick x={:.1} y={:.1} text-anchor=end>{text}</text>",
            LEFT - 6.0,
            at + 4.0
        );
    }
    for mark in marks {
        let at = at_y(mark.at);
        let _ = writeln!(
            svg,
            "<line class=mark x1={LEFT} x2={right} y1={at:.1} y2={at:.1} /><text class=tick x={:.1} y={:.1} text-anchor=end>{}</text>",
            right - 4.0,
            at - 4.0,
            escape(&mark.name)
        );
    }
    for (number, series) in series.iter().enumerate() {
        let places: Vec<String> =
            series.points.iter().map(|point| format!("{:.1},{:.1}", at_x(point.0), at_y(point.1))).collect();
        if series.is_line {
            let _ = writeln!(svg, "<polyline class=\"s{number}\" points=\"{}\" />", places.join(" "));
        } else {
            for point in &series.points {
                let _ = writeln!(
                    svg,
                    "<circle class=\"p{number}\" cx={:.1} cy={:.1} r={POINT} />",
                    at_x(point.0),
                    at_y(point.1)
                );
            }
        }
    }
    let _ = writeln!(
        svg,
        "<text class=axis x={:.1} y={:.1} text-anchor=middle>{}</text>",
        (LEFT + right) / 2.0,
        HEIGHT - 8.0,
        escape(x.name)
    );
    svg += "</svg><figcaption>";
    let _ = write!(svg, "<span class=yname>{}</span>", escape(y.name));
    for (number, series) in series.iter().enumerate() {
        let _ = write!(svg, " <span class=key><i class=k{number}></i>{}</span>", escape(series.name));
    }
    svg + "</figcaption></figure>\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_short() {
        for (value, text) in [
            (0.0, "0"),
            (1.5, "1.5"),
            (12.34, "12.3"),
            (999.4, "999"),
            (1234.0, "1234"),
            (71_000.0, "71k"),
            (2.5e6, "2.5M"),
        ] {
            assert_eq!(short(value), text);
        }
        assert_eq!(time(250.0), "250 µs");
        assert_eq!(time(1500.0), "1.5 ms");
        assert_eq!(time(2e6), "2 s");
    }

    #[test]
    fn steps_are_round() {
        assert_eq!(round_step(0.3), 0.5);
        assert_eq!(round_step(7.0), 10.0);
        assert_eq!(round_step(1500.0), 2000.0);
    }

    #[test]
    fn every_point_lies_within_the_plot() {
        let points = vec![(0.0, 0.0), (0.5, 10.0), (0.999, 1e6), (0.99999, f64::INFINITY)];
        let series = [Series { name: "a <b>", points, is_line: false }];
        let x = Axis { name: "share", scale: Scale::Nines };
        let y = Axis { name: "time", scale: Scale::Log };
        let svg = plot("a plot", &x, &y, &series, &[Mark { at: 1000.0, name: "limit".to_owned() }]);
        assert!(svg.contains("a &lt;b&gt;") && !svg.contains("NaN") && !svg.contains("inf"), "{svg}");
        for part in svg.split("cx=").skip(1) {
            let at: f64 = part.split(' ').next().unwrap().parse().unwrap();
            assert!((LEFT..=WIDTH - RIGHT).contains(&at), "{at}");
        }
    }

    #[test]
    fn nothing_at_all_is_an_empty_plot() {
        let x = Axis { name: "x", scale: Scale::Linear };
        let svg = plot("nothing", &x, &x, &[Series { name: "none", points: vec![], is_line: true }], &[]);
        assert!(!svg.contains("NaN") && !svg.contains("inf"), "{svg}");
    }
}
