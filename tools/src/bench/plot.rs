//! Throughput and latency over the number of callers, as a drawing.

use std::path::Path;

use litefs_examples::Problem;
use plotters::chart::ChartBuilder;
use plotters::coord::Shift;
use plotters::coord::combinators::IntoLogRange;
use plotters::drawing::{DrawingArea, IntoDrawingArea};
use plotters::element::{Circle, PathElement};
use plotters::prelude::SVGBackend;
use plotters::series::LineSeries;
use plotters::style::{BLACK, BLUE, Color, RED, RGBColor, WHITE};

use super::storm::Summary;

const COLOURS: [RGBColor; 3] = [BLUE, RED, RGBColor(128, 128, 128)];

/// The measurements of one contender.
pub(super) struct Curve {
    pub(super) name: &'static str,
    pub(super) points: Vec<Point>,
}

/// The results for this number of callers.
pub(super) struct Point {
    pub(super) callers: usize,
    pub(super) summary: Summary,
}

/// A line of one chart: its name, its colour and its figure.
struct Line {
    name: String,
    colour: usize,
    values: Vec<(f64, f64)>,
}

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;

/// Writes the file: throughput on the left, latency on the right.
pub(super) fn draw(file: &Path, curves: &[Curve]) -> Result<(), Problem> {
    let area = SVGBackend::new(file, (1_280, 520)).into_drawing_area();
    area.fill(&WHITE)?;
    let halves = area.split_evenly((1, 2));
    let [left, right] = halves.as_slice() else { return Err("two halves of a drawing".into()) };
    chart(left, "calls per second", &lines(curves, &[("", |summary| summary.throughput)]))?;
    let latencies: [Figure; 2] = [("p50", |summary| summary.p50), ("p99", |summary| summary.p99)];
    chart(right, "latency in microseconds", &lines(curves, &latencies))?;
    Ok(area.present()?)
}

/// Selects a figure of a summary, with its name.
type Figure = (&'static str, fn(&Summary) -> f64);

fn lines(curves: &[Curve], figures: &[Figure]) -> Vec<Line> {
    let mut lines = Vec::new();
    for (colour, curve) in curves.iter().enumerate() {
        for (figure, of) in figures {
            let value = |point: &Point| (point.callers as f64, of(&point.summary).max(1.0));
            lines.push(Line {
                name: format!("{} {figure}", curve.name).trim().to_owned(),
                colour,
                values: curve.points.iter().map(value).collect(),
            });
        }
    }
    lines
}

/// Both axes are logarithmic: the number of callers doubles from point to point.
fn chart(area: &Area<'_>, title: &str, lines: &[Line]) -> Result<(), Problem> {
    let all = || lines.iter().flat_map(|line| line.values.iter());
    let (lowest, highest) =
        all().fold((f64::MAX, 1.0), |(low, high), (_, y)| (y.min(low), y.max(high)));
    let most = all().fold(2.0, |most, (x, _)| x.max(most));
    let mut chart = ChartBuilder::on(area)
        .caption(title, ("sans-serif", 20))
        .margin(12)
        .x_label_area_size(40)
        .y_label_area_size(70)
        .build_cartesian_2d((1.0..most).log_scale(), (lowest * 0.8..highest * 1.25).log_scale())?;
    chart
        .configure_mesh()
        .label_style(("sans-serif", 14))
        .x_desc("callers")
        .x_label_formatter(&|callers| format!("{callers:.0}"))
        .y_label_formatter(&|y| format!("{y:.0}"))
        .draw()?;
    for line in lines {
        let colour = COLOURS[line.colour % COLOURS.len()];
        // The line of the 99th percentile is the fainter one.
        let style = colour.mix(if line.name.ends_with("p99") { 0.5 } else { 1.0 }).stroke_width(2);
        chart
            .draw_series(LineSeries::new(line.values.iter().copied(), style))?
            .label(&line.name)
            .legend(move |(x, y)| PathElement::new(vec![(x, y), (x + 20, y)], style));
        chart.draw_series(line.values.iter().map(|value| Circle::new(*value, 3, style)))?;
    }
    chart
        .configure_series_labels()
        .label_font(("sans-serif", 14))
        .background_style(WHITE.mix(0.8))
        .border_style(BLACK)
        .draw()?;
    Ok(())
}
