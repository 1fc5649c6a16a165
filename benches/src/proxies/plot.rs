//! Bars with whiskers, as SVG.

use std::fmt::Write as _;

use super::figures::{Figures, Metric, Section};
use super::metric_text::Better;
use super::scenario::Role;
use super::subject::{DNS_PROXY, HTTP_PROXY};

/// A picture.
#[derive(Debug, Clone)]
pub struct Plot {
    name: String,
    svg: String,
}

impl Plot {
    /// Of its file.
    #[must_use]
    pub fn file_name(&self) -> String {
        format!("{}.svg", self.name)
    }

    /// The file.
    #[must_use]
    pub fn svg(&self) -> &str {
        &self.svg
    }
}

/// Pixels.
const WIDTH: f64 = 860.0;
const LEFT: f64 = 230.0;
const RIGHT: f64 = 150.0;
const BAR: f64 = 14.0;
const STEP: f64 = 20.0;
const TITLE: f64 = 34.0;

/// All scenarios of a role; `None` where nothing was measured.
pub(crate) fn plot(role: Role, figures: &Figures) -> Option<Plot> {
    let mut y = 10.0;
    let mut body = String::new();
    for section in figures.of_role(role) {
        y = panel(&mut body, section, y);
    }
    if body.is_empty() {
        return None;
    }
    let height = y + 10.0;
    let svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{WIDTH}\" height=\"{height}\" \
         viewBox=\"0 0 {WIDTH} {height}\" font-family=\"sans-serif\" font-size=\"12\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"#ffffff\"/>\n{body}</svg>\n"
    );
    Some(Plot {
        name: role.name().to_owned(),
        svg,
    })
}

/// Draws a scenario below `y`, and says where it ends.
fn panel(body: &mut String, section: &Section, mut y: f64) -> f64 {
    let metric = Metric::main_of(&section.scenario.work);
    let bars: Vec<_> = section
        .rows()
        .filter_map(|(name, row)| Some((name, row.samples(metric)?)))
        .collect();
    let most = bars
        .iter()
        .map(|(_, samples)| samples.max())
        .fold(0.0, f64::max);
    if most <= 0.0 {
        return y;
    }
    let better = match metric.better() {
        Better::Higher => "more is better",
        Better::Lower => "less is better",
    };
    let title = escaped(&section.scenario.title);
    let what = metric.title();
    // Writing to a string cannot fail.
    let _ = writeln!(
        body,
        "<text x=\"10\" y=\"{:.0}\"><tspan font-weight=\"bold\">{title}</tspan> ({what}, {better})\
         </text>",
        y + 20.0
    );
    y += TITLE;
    let scale = (WIDTH - LEFT - RIGHT) / most;
    for (name, samples) in bars {
        let colour = if name.starts_with(HTTP_PROXY) || name == DNS_PROXY {
            "#1f77b4"
        } else {
            "#b0b7bf"
        };
        let middle = y + BAR / 2.0;
        let [median, min, max] =
            [samples.median(), samples.min(), samples.max()].map(|value| value.max(0.0) * scale);
        let _ = writeln!(
            body,
            "<text x=\"{:.0}\" y=\"{:.0}\" text-anchor=\"end\">{}</text>\
             <rect x=\"{LEFT}\" y=\"{y:.1}\" width=\"{median:.1}\" height=\"{BAR}\" \
             fill=\"{colour}\"/>\
             <path d=\"M{:.1} {middle:.1}H{:.1}\" stroke=\"#333333\"/>\
             <text x=\"{:.1}\" y=\"{:.0}\">{}</text>",
            LEFT - 6.0,
            y + 11.0,
            escaped(name),
            LEFT + min,
            LEFT + max,
            LEFT + max + 6.0,
            y + 11.0,
            metric.text(samples.median())
        );
        y += STEP;
    }
    y
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;")
}

#[cfg(test)]
mod tests {
    use super::super::figures::{Found, Row};
    use super::super::scenario::{Extent, Scenario};
    use super::*;

    #[test]
    fn the_longest_bar_has_the_whole_width() {
        let scenario = Scenario::all(&Extent::full()).into_iter().next().unwrap();
        let mut section = Section::new(scenario);
        for (name, rate) in [("a < b", 50.0), (HTTP_PROXY, 100.0)] {
            let mut row = Row::new();
            row.push(Ok(Found::from([(Metric::Rate, rate)])));
            section.add(name, row);
        }
        let figures = Figures::new(vec![section]);
        let plot = plot(Role::Http, &figures).unwrap();
        assert_eq!(plot.file_name(), "http.svg");
        assert!(plot.svg().contains("width=\"480.0\""), "{}", plot.svg());
        assert!(plot.svg().contains("width=\"240.0\""), "{}", plot.svg());
        assert!(plot.svg().contains("a &lt; b"), "{}", plot.svg());
        assert!(super::plot(Role::Tls, &figures).is_none());
    }
}
