//! Rows as a picture: lines over a number, or bars by case, a panel for each unit. Knows figures and their names; never what was
//! measured.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context as _, Result, anyhow};
use plotters::coord::Shift;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};
use synmill_benches::rows::Row;
use synmill_lab::workspace;

/// The folder of the pictures, in the workspace.
const FOLDER: &str = "docs/plots";
/// Of a picture and of its parts, in pixels.
const WIDTH: u32 = 860;
const LINES_HEIGHT: u32 = 380;
const BAR_HEIGHT: u32 = 26;
const AROUND_BARS: u32 = 90;
const CHARACTER_WIDTH: usize = 8;
/// Of the names beside lines.
const NAMES: u32 = 160;
/// Told apart by people who see few colours, too (Okabe and Ito).
const COLOURS: [RGBColor; 7] = [
    RGBColor(0, 114, 178),
    RGBColor(213, 94, 0),
    RGBColor(0, 158, 115),
    RGBColor(204, 121, 167),
    RGBColor(230, 159, 0),
    RGBColor(86, 180, 233),
    BLACK,
];

/// A name, and points by number.
type Series<'a> = (&'a str, Vec<(f64, f64)>);
type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;

/// The figures of one unit.
#[derive(Debug, PartialEq)]
enum Panel<'a> {
    /// Of cases named `SERIES/NUMBER`: for each series its points, by number.
    Lines(Vec<Series<'a>>),
    /// Of any other cases, in their order.
    Bars(Vec<(&'a str, f64)>),
}

/// Draws the rows of these units; where the picture is. Nothing when no row is of any.
pub(super) fn draw(name: &str, units: &[&str], rows: &[Row]) -> Result<Option<PathBuf>> {
    let panels: Vec<(&str, Panel<'_>)> =
        units.iter().filter_map(|&unit| Some((unit, Panel::of(rows, unit)?))).collect();
    if panels.is_empty() {
        return Ok(None);
    }
    let folder = workspace().join(FOLDER);
    fs::create_dir_all(&folder).with_context(|| folder.display().to_string())?;
    let file = folder.join(format!("{name}.svg"));
    fs::write(&file, svg(name, &panels)?).with_context(|| file.display().to_string())?;
    Ok(Some(file))
}

/// The units of the rows, each once; ratios are figures about figures.
pub(super) fn units(rows: &[Row]) -> Vec<&str> {
    let mut units: Vec<&str> = Vec::new();
    for row in rows {
        if !units.contains(&row.unit.as_str()) && !row.unit.starts_with("ratio") {
            units.push(&row.unit);
        }
    }
    units
}

impl<'a> Panel<'a> {
    fn of(rows: &'a [Row], unit: &str) -> Option<Self> {
        let bars: Vec<(&str, f64)> =
            rows.iter().filter(|row| row.unit == unit).map(|row| (row.case.as_str(), row.value)).collect();
        if bars.is_empty() {
            return None;
        }
        Some(lines(&bars).map_or(Self::Bars(bars), Self::Lines))
    }

    fn height(&self) -> u32 {
        match self {
            Self::Lines(_) => LINES_HEIGHT,
            Self::Bars(bars) => AROUND_BARS + BAR_HEIGHT * u32::try_from(bars.len()).unwrap_or(u32::MAX / 64),
        }
    }
}

/// As series over a number, if all are, and the numbers differ.
fn lines<'a>(cases: &[(&'a str, f64)]) -> Option<Vec<Series<'a>>> {
    let mut series: Vec<Series<'_>> = Vec::new();
    for &(case, value) in cases {
        let (name, number) = case.rsplit_once('/')?;
        let point = (number.parse().ok().filter(|&number: &f64| number > 0.0)?, value);
        match series.iter_mut().find(|(known, _)| *known == name) {
            Some((_, points)) => points.push(point),
            None => series.push((name, vec![point])),
        }
    }
    for (_, points) in &mut series {
        points.sort_by(|one, other| one.0.total_cmp(&other.0));
    }
    series.iter().any(|(_, points)| points.len() > 1).then_some(series)
}

fn svg(name: &str, panels: &[(&str, Panel<'_>)]) -> Result<String> {
    let mut text = String::new();
    {
        let height = panels.iter().map(|(_, panel)| panel.height()).sum();
        let mut rest = SVGBackend::with_string(&mut text, (WIDTH, height)).into_drawing_area();
        rest.fill(&WHITE).map_err(failed)?;
        for (unit, panel) in panels {
            let (area, below) = rest.split_vertically(panel.height());
            let title = format!("{name}: {}", unit.replace('_', " "));
            match panel {
                Panel::Lines(series) => draw_lines(&area, &title, series)?,
                Panel::Bars(bars) => draw_bars(&area, &title, bars)?,
            }
            rest = below;
        }
        rest.present().map_err(failed)?;
    }
    Ok(text)
}

fn draw_lines(area: &Area<'_>, title: &str, series: &[Series<'_>]) -> Result<()> {
    let points = || series.iter().flat_map(|(_, points)| points);
    let (least, most) =
        points().fold((f64::MAX, 0.0_f64), |(least, most), &(x, _)| (least.min(x), most.max(x)));
    // A little beside the first and the last point, on a logarithmic scale.
    let numbers = (least / 1.5..most * 1.5).log_scale();
    let mut chart = ChartBuilder::on(area)
        .caption(title, ("sans-serif", 18))
        .margin(12)
        .margin_right(NAMES)
        .x_label_area_size(36)
        .y_label_area_size(64)
        .build_cartesian_2d(numbers, 0.0..highest(points().map(|point| point.1)))
        .map_err(failed)?;
    chart
        .configure_mesh()
        .light_line_style(TRANSPARENT)
        .label_style(("sans-serif", 13))
        .x_label_formatter(&|number| short(*number))
        .y_label_formatter(&|value| mark(*value))
        .draw()
        .map_err(failed)?;
    for ((_, points), colour) in series.iter().zip(COLOURS.iter().cycle()) {
        chart
            .draw_series(LineSeries::new(points.iter().copied(), colour.stroke_width(2)).point_size(4))
            .map_err(failed)?;
        let above = TextStyle::from(("sans-serif", 13).into_font())
            .color(colour)
            .pos(Pos::new(HPos::Center, VPos::Bottom));
        let shown = points
            .iter()
            .map(|&point| EmptyElement::at(point) + Text::new(figure(point.1), (0, -6), above.clone()));
        chart.draw_series(shown).map_err(failed)?;
    }
    // Beside the lines, where they hide none.
    let left = area.dim_in_pixel().0 as i32 - NAMES as i32 + 12;
    let middle = Pos::new(HPos::Left, VPos::Center);
    let names = TextStyle::from(("sans-serif", 14).into_font()).pos(middle);
    for (((name, _), colour), y) in series.iter().zip(COLOURS.iter().cycle()).zip((60..).step_by(20)) {
        area.draw(&PathElement::new([(left, y), (left + 18, y)], colour.stroke_width(2))).map_err(failed)?;
        area.draw(&Text::new(*name, (left + 24, y), names.clone())).map_err(failed)?;
    }
    Ok(())
}

fn draw_bars(area: &Area<'_>, title: &str, bars: &[(&str, f64)]) -> Result<()> {
    let longest = bars.iter().map(|(name, _)| name.chars().count()).max().unwrap_or(0);
    let names = u32::try_from(longest * CHARACTER_WIDTH + 16).unwrap_or(WIDTH / 2).min(WIDTH / 2);
    let count = bars.len() as f64;
    let mut chart = ChartBuilder::on(area)
        .caption(title, ("sans-serif", 18))
        .margin(12)
        .margin_left(names)
        .x_label_area_size(28)
        // The first case on top.
        .build_cartesian_2d(0.0..highest(bars.iter().map(|bar| bar.1)), count..0.0)
        .map_err(failed)?;
    chart
        .configure_mesh()
        .disable_y_mesh()
        .disable_y_axis()
        .light_line_style(TRANSPARENT)
        .label_style(("sans-serif", 13))
        .x_label_formatter(&|value| mark(*value))
        .draw()
        .map_err(failed)?;
    for (place, &(name, value)) in bars.iter().enumerate() {
        let (top, middle) = (place as f64, place as f64 + 0.5);
        let bar = Rectangle::new([(0.0, top + 0.15), (value, top + 0.85)], COLOURS[0].filled());
        chart.draw_series([bar]).map_err(failed)?;
        let style = ("sans-serif", 14).into_text_style(area);
        let [beside, before] = [HPos::Left, HPos::Right].map(|side| style.pos(Pos::new(side, VPos::Center)));
        let value = EmptyElement::at((value, middle)) + Text::new(figure(value), (6, 0), beside);
        let name = EmptyElement::at((0.0, middle)) + Text::new(name.to_owned(), (-6, 0), before);
        chart.draw_series([value]).map_err(failed)?;
        chart.draw_series([name]).map_err(failed)?;
    }
    Ok(())
}

/// The end of an axis from 0 that has room for all values and what is written beside them.
fn highest(values: impl Iterator<Item = f64>) -> f64 {
    let most = values.fold(0.0, f64::max);
    if most > 0.0 { most * 1.15 } else { 1.0 }
}

/// A value, to three digits or more.
fn figure(value: f64) -> String {
    match value.abs() {
        1e6.. => format!("{:.2} M", value / 1e6),
        1e3.. => {
            let whole = value.round();
            format!("{},{:03}", (whole / 1e3).trunc(), (whole % 1e3).abs())
        }
        100.0.. => format!("{value:.0}"),
        10.0.. => format!("{value:.1}"),
        0.0 => "0".to_owned(),
        _ => format!("{value:.2}"),
    }
}

/// A value at an axis: mostly a round one.
fn mark(value: f64) -> String {
    if value.fract() == 0.0 && value.abs() < 1e3 { value.to_string() } else { figure(value) }
}

/// A number of things, such as 1 M.
fn short(number: f64) -> String {
    match number {
        1e6.. => format!("{} M", number / 1e6),
        1e3.. => format!("{} k", number / 1e3),
        _ => number.to_string(),
    }
}

fn failed(error: impl std::fmt::Display) -> anyhow::Error {
    anyhow!("drawing: {error}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows() -> Vec<Row> {
        vec![
            Row::new("b", "responder/1000000", 165.0, "ns_per_connection"),
            Row::new("b", "responder/1000", 120.0, "ns_per_connection"),
            Row::new("b", "opener/1000", 130.0, "ns_per_connection"),
            Row::new("b", "parse", 9.0, "ns"),
            Row::new("b", "parse/2", 7.0, "ns"),
            Row::new("b", "responder/opener", 0.9, "ratio"),
        ]
    }

    #[test]
    fn cases_over_a_number_are_lines_and_others_bars() {
        let rows = rows();
        assert_eq!(units(&rows), ["ns_per_connection", "ns"]);
        let lines = vec![("responder", vec![(1e3, 120.0), (1e6, 165.0)]), ("opener", vec![(1e3, 130.0)])];
        assert_eq!(Panel::of(&rows, "ns_per_connection"), Some(Panel::Lines(lines)));
        assert_eq!(Panel::of(&rows, "ns"), Some(Panel::Bars(vec![("parse", 9.0), ("parse/2", 7.0)])));
        assert_eq!(Panel::of(&rows, "bytes"), None);
    }

    #[test]
    fn figures_are_short() {
        let shown = [0.0, 0.256, 12.34, 165.4, 1_003.6, 272_999.7, 6_123_000.0].map(figure);
        assert_eq!(shown, ["0", "0.26", "12.3", "165", "1,004", "273,000", "6.12 M"]);
        assert_eq!([50.0, 0.5, 40_000.0].map(mark), ["50", "0.50", "40,000"]);
        assert_eq!([1.0, 1e3, 1e8].map(short), ["1", "1 k", "100 M"]);
    }

    #[test]
    fn every_case_and_value_is_in_the_picture() {
        let rows = rows();
        let panels: Vec<_> =
            units(&rows).into_iter().map(|unit| (unit, Panel::of(&rows, unit).unwrap())).collect();
        let text = svg("b", &panels).unwrap();
        for word in
            ["<svg", "b: ns per connection", "responder", "opener", "165", "1 M", "parse/2", "9.00", "</svg>"]
        {
            assert!(text.contains(word), "{word}: {text}");
        }
    }
}
