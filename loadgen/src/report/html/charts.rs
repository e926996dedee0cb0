//! The charts of the page as SVG. Colours are those of the light page; the style sheet replaces them in the dark.

use anyhow::{Result, anyhow};
use hdrhistogram::Histogram;
use plotters::coord::ranged1d::{AsRangedCoord, ValueFormatter};
use plotters::prelude::*;

use crate::report::figures::Run;

/// The lines of a chart, in the order of operations; more operations begin anew.
pub const SERIES: [RGBColor; 9] = [
    RGBColor(0x2a, 0x78, 0xd6),
    RGBColor(0x1b, 0xaf, 0x7a),
    RGBColor(0xed, 0xa1, 0x00),
    RGBColor(0x4a, 0x3a, 0xa7),
    RGBColor(0xe8, 0x7b, 0xa4),
    RGBColor(0x00, 0x83, 0x00),
    RGBColor(0x9c, 0x4a, 0x1a),
    RGBColor(0x6f, 0x6f, 0x78),
    RGBColor(0xa3, 0x13, 0x8e),
];
const GRID: RGBColor = RGBColor(0xe1, 0xe0, 0xd9);
const AXIS: RGBColor = RGBColor(0xb9, 0xb8, 0xb0);
const LABELS: RGBColor = RGBColor(0x62, 0x61, 0x5c);
const ERRORS: RGBColor = RGBColor(0xd0, 0x3b, 0x3b);

const LABEL_PX: u32 = 14;
/// A chart for a screen and one for a telephone: labels would be too small in a chart that was scaled down.
const WIDE: (u32, u32) = (880, 280);
const NARROW: (u32, u32) = (360, 260);

/// Steps of the percentile axis in each tenfold of the distance to 100 %.
const STEPS: u32 = 24;

type Point = (f64, f64);

/// Lines over an axis.
struct Chart {
    /// Thickness, opacity and points of each line, with the place of its operation.
    lines: Vec<(usize, u32, f64, Vec<Point>)>,
    /// Where errors happened, from and to.
    bands: Vec<(f64, f64)>,
    /// Where something was done to the cluster.
    marks: Vec<f64>,
    x_max: f64,
    x_label: fn(f64) -> String,
    /// Labels on the x axis; `None`: as many as fit.
    x_labels: Option<usize>,
}

/// Latency by percentile, both axes logarithmic: towards 100 % and in milliseconds.
pub fn percentiles(histograms: &[&Histogram<u64>]) -> Result<String> {
    let longest = histograms.iter().map(|histogram| histogram.len()).max();
    // As far as one request of all is a share: beyond that the line says nothing new.
    let tenfolds = (longest.unwrap_or(1).max(10) as f64)
        .log10()
        .ceil()
        .min(6.0);
    let steps = (tenfolds * f64::from(STEPS)) as u32;
    let lines = histograms.iter().enumerate().map(|(place, histogram)| {
        let point = |step: u32| {
            let tenfold = f64::from(step) / f64::from(STEPS);
            let quantile = 1.0 - 10_f64.powf(-tenfold);
            (
                tenfold,
                histogram.value_at_quantile(quantile) as f64 / 1000.0,
            )
        };
        let known = (histogram.len().max(1) as f64).log10();
        let points = (0..=steps).map(point);
        let points = points.filter(|(tenfold, _)| *tenfold <= known);
        (place, 2, 1.0, points.collect())
    });
    Chart {
        lines: lines.collect(),
        bands: Vec::new(),
        marks: Vec::new(),
        x_max: tenfolds,
        x_label: |tenfold| match tenfold.round() as i32 {
            _ if tenfold.fract() != 0.0 => String::new(),
            0 => "0%".to_owned(),
            1 => "90%".to_owned(),
            nines => format!("{:.*}%", nines as usize - 2, 100.0 - 10_f64.powi(2 - nines)),
        },
        x_labels: Some(tenfolds as usize + 1),
    }
    .draw_both(Scale::Logarithmic)
}

/// Successes per second over time.
pub fn throughput(run: &Run) -> Result<String> {
    let lines = (0..run.operations.len()).map(|place| {
        let points = run.seconds.iter().filter_map(|second| {
            let moment = second.operations.get(place)?;
            let middle = second.from_s + second.length_s / 2.0;
            Some((middle, moment.count as f64 / second.length_s))
        });
        (place, 2, 1.0, points.collect())
    });
    over_time(run, lines.collect()).draw_both(Scale::Linear)
}

/// Median (thin) and 99th percentile (thick) of each second over time.
pub fn latency(run: &Run) -> Result<String> {
    let mut lines = Vec::new();
    for place in 0..run.operations.len() {
        let seconds = run.seconds.iter();
        let answered = seconds.filter_map(|second| {
            let moment = second.operations.get(place)?;
            let middle = second.from_s + second.length_s / 2.0;
            (moment.count > 0).then_some((middle, moment.p50_ms, moment.p99_ms))
        });
        let answered: Vec<_> = answered.collect();
        let median = answered.iter().map(|(at, p50_ms, _)| (*at, *p50_ms));
        lines.push((place, 1, 0.8, median.collect()));
        let p99 = answered.iter().map(|(at, _, p99_ms)| (*at, *p99_ms));
        lines.push((place, 2, 1.0, p99.collect()));
    }
    over_time(run, lines).draw_both(Scale::Logarithmic)
}

fn over_time(run: &Run, lines: Vec<(usize, u32, f64, Vec<Point>)>) -> Chart {
    let failed = run.seconds.iter().filter(|second| {
        let mut moments = second.operations.iter();
        moments.any(|moment| moment.errors > 0)
    });
    Chart {
        lines,
        bands: failed
            .map(|second| (second.from_s, second.from_s + second.length_s))
            .collect(),
        marks: run.marks.iter().map(|mark| mark.at_s).collect(),
        x_max: run.elapsed_s.max(1.0),
        x_label: |seconds| format!("{seconds} s"),
        x_labels: None,
    }
}

#[derive(Clone, Copy)]
enum Scale {
    Linear,
    Logarithmic,
}

impl Chart {
    fn draw_both(&self, scale: Scale) -> Result<String> {
        let (wide, narrow) = (self.draw(scale, WIDE)?, self.draw(scale, NARROW)?);
        Ok(format!(
            "<div class=\"wide\">{wide}</div><div class=\"narrow\">{narrow}</div>"
        ))
    }

    fn draw(&self, scale: Scale, size: (u32, u32)) -> Result<String> {
        let values = self.lines.iter().flat_map(|(.., points)| points);
        let values = values.map(|(_, value)| *value).filter(|value| *value > 0.0);
        let (low, high) = values.fold((f64::INFINITY, 0.0_f64), |(low, high), value| {
            (low.min(value), high.max(value))
        });
        match scale {
            Scale::Linear => self.draw_on(size, 0.0..(high * 1.1).max(1.0)),
            Scale::Logarithmic => {
                let low = if low.is_finite() { low } else { 1.0 };
                // Whole powers of ten have labels.
                let low = 10_f64.powf(low.log10().floor());
                let high = (high * 1.2).max(low * 10.0);
                self.draw_on(size, (low..high).log_scale())
            }
        }
    }

    fn draw_on<Y>(&self, size: (u32, u32), y: Y) -> Result<String>
    where
        Y: AsRangedCoord<Value = f64>,
        Y::CoordDescType: ValueFormatter<f64>,
    {
        let failed = |error: &dyn std::fmt::Display| anyhow!("cannot draw a chart: {error}");
        let mut svg = String::new();
        {
            let root = SVGBackend::with_string(&mut svg, size).into_drawing_area();
            let chart = ChartBuilder::on(&root)
                .margin_top(8)
                .margin_right(22)
                .x_label_area_size(26)
                .y_label_area_size(52)
                .build_cartesian_2d(0.0..self.x_max, y)
                .map_err(|error| failed(&error))?;
            self.fill(chart, size)?;
            root.present().map_err(|error| failed(&error))?;
        }
        Ok(svg)
    }

    fn fill<X, Y>(
        &self,
        mut chart: ChartContext<'_, SVGBackend<'_>, Cartesian2d<X, Y>>,
        (width, height): (u32, u32),
    ) -> Result<()>
    where
        X: Ranged<ValueType = f64> + ValueFormatter<f64>,
        Y: Ranged<ValueType = f64> + ValueFormatter<f64>,
    {
        let failed = |error: &dyn std::fmt::Display| anyhow!("cannot draw a chart: {error}");
        let label = ("sans-serif", LABEL_PX).into_font().color(&LABELS);
        chart
            .configure_mesh()
            .light_line_style(TRANSPARENT)
            .bold_line_style(GRID)
            .axis_style(AXIS)
            .label_style(label)
            .x_labels(self.x_labels.unwrap_or((width / 90) as usize))
            .y_labels((height / 45) as usize)
            .x_label_formatter(&|value| (self.x_label)(*value))
            .y_label_formatter(&|value| short(*value))
            .draw()
            .map_err(|error| failed(&error))?;
        let (low, high) = (chart.y_range().start, chart.y_range().end);
        let bands = self.bands.iter().map(|(from, to)| {
            let corners = [(*from, low), (to.min(self.x_max), high)];
            Rectangle::new(corners, ERRORS.mix(0.22).filled())
        });
        chart.draw_series(bands).map_err(|error| failed(&error))?;
        for at in &self.marks {
            let line = [(*at, low), (*at, high)];
            chart
                .draw_series(LineSeries::new(line, LABELS.stroke_width(1)))
                .map_err(|error| failed(&error))?;
        }
        for (place, thickness, opacity, points) in &self.lines {
            let colour = SERIES[place % SERIES.len()];
            let style = colour.mix(*opacity).stroke_width(*thickness);
            chart
                .draw_series(LineSeries::new(points.iter().copied(), style))
                .map_err(|error| failed(&error))?;
        }
        Ok(())
    }
}

/// A number with few digits: `0.05`, `2.5`, `40`, `12k`.
fn short(value: f64) -> String {
    match value {
        value if value >= 10_000.0 => format!("{}k", value / 1000.0),
        value if value >= 1.0 || value == 0.0 => format!("{}", (value * 100.0).round() / 100.0),
        value => format!("{}", (value * 1e6).round() / 1e6),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_short() {
        for (value, expected) in [
            (0.0, "0"),
            (0.05, "0.05"),
            (2.5, "2.5"),
            (40.0, "40"),
            (12_500.0, "12.5k"),
        ] {
            assert_eq!(short(value), expected);
        }
    }
}
