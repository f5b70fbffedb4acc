//! Pictures, as SVG and as PNG: the course of a surge under each rule, and dollars by part.
//!
//! The font is compiled in, so that a picture needs none of the machine's and is the same everywhere.

use crate::sheet::figure;
use crate::sizing::{Approach, Sized};
use crate::surge::{Course, Occasion, Settings, SurgeResult};
use anyhow::{Context as _, Result, anyhow};
use plotters::coord::Shift;
use plotters::prelude::*;
use plotters::style::{FontStyle, register_font};
use std::fs;
use std::path::{Path, PathBuf};

const FONT: &str = "sans-serif";
const NEEDED: RGBColor = RGBColor(140, 140, 140);
const WORKERS: RGBColor = RGBColor(20, 90, 180);
const DELAY: RGBColor = RGBColor(205, 60, 40);
const APPROACHES: [RGBColor; 3] = [RGBColor(20, 90, 180), RGBColor(235, 155, 45), RGBColor(205, 60, 40)];

/// What a picture shows.
#[derive(Debug, Clone, Copy)]
pub enum Picture<'a> {
    /// An occasion under each rule.
    Surge(Occasion, &'a Settings, &'a [(SurgeResult, Course)]),
    /// Dollars a month by part, of each approach.
    Dollars(&'a [Sized]),
}

impl Picture<'_> {
    fn name(&self) -> &'static str {
        match self {
            Self::Surge(occasion, ..) => occasion.file(),
            Self::Dollars(_) => "dollars",
        }
    }

    fn size(&self) -> (u32, u32) {
        match self {
            Self::Surge(..) => (960, 640),
            Self::Dollars(_) => (960, 420),
        }
    }

    /// Draws it into a folder: an SVG and a PNG.
    ///
    /// # Errors
    /// If a file cannot be written.
    pub fn draw(&self, folder: &Path) -> Result<[PathBuf; 2]> {
        fs::create_dir_all(folder).with_context(|| format!("creating {}", folder.display()))?;
        register_font(FONT, FontStyle::Normal, epaint_default_fonts::UBUNTU_LIGHT)
            .map_err(|_| anyhow!("the font cannot be read"))?;
        let [svg, png] = ["svg", "png"].map(|extension| folder.join(format!("{}.{extension}", self.name())));
        let paint = self.paint(SVGBackend::new(&svg, self.size()));
        paint.with_context(|| format!("drawing {}", svg.display()))?;
        let paint = self.paint(BitMapBackend::new(&png, self.size()));
        paint.with_context(|| format!("drawing {}", png.display()))?;
        Ok([svg, png])
    }

    fn paint<B: DrawingBackend>(&self, backend: B) -> Result<()>
    where
        B::ErrorType: 'static,
    {
        let area = backend.into_drawing_area();
        area.fill(&WHITE)?;
        match self {
            Self::Surge(occasion, settings, runs) => {
                let heading = format!(
                    "{}: workers needed (grey) and there (blue), how long events wait (red, right; at worst in the titles)",
                    capital(occasion.name())
                );
                let area = area.titled(&heading, (FONT, 16))?;
                for (panel, (result, course)) in area.split_evenly((2, 3)).iter().zip(*runs) {
                    course_panel(panel, settings, result, course)?;
                }
            }
            Self::Dollars(plans) => bars(&area, plans)?,
        }
        area.present()?;
        Ok(())
    }
}

fn capital(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().map_or_else(String::new, |first| first.to_uppercase().chain(letters).collect())
}

/// The next round number above.
fn round_up(value: f64) -> f64 {
    let step = 10_f64.powf(value.max(1.0).log10().floor()) / 2.0;
    (value / step).ceil().max(1.0) * step
}

fn course_panel<B: DrawingBackend>(
    panel: &DrawingArea<B, Shift>,
    settings: &Settings,
    result: &SurgeResult,
    course: &Course,
) -> Result<()>
where
    B::ErrorType: 'static,
{
    let minutes = course.points.last().map_or(1.0, |point| point.at / 60.0);
    let most_workers = round_up(settings.workers_for(settings.peak) as f64 * 1.8);
    let most_delay = round_up(result.worst_delay.max(30.0));
    let SurgeResult { scaling, worst_delay, worker_hours, .. } = result;
    let caption = format!("{}: {worst_delay:.0} s, {worker_hours:.0} worker-hours", scaling.name());
    let mut chart = ChartBuilder::on(panel)
        .caption(caption, (FONT, 12))
        .margin(6)
        .x_label_area_size(22)
        .y_label_area_size(30)
        .right_y_label_area_size(38)
        .build_cartesian_2d(0.0..minutes, 0.0..most_workers)?
        .set_secondary_coord(0.0..minutes, 0.0..most_delay);
    let hours = |minutes: &f64| format!("{:.0} h", minutes / 60.0);
    chart
        .configure_mesh()
        .disable_mesh()
        .x_labels(5)
        .x_label_formatter(&hours)
        .y_labels(5)
        .y_label_formatter(&|count| format!("{count:.0}"))
        .label_style((FONT, 11))
        .draw()?;
    let seconds = |seconds: &f64| format!("{seconds:.0} s");
    chart.configure_secondary_axes().y_labels(5).y_label_formatter(&seconds).label_style((FONT, 11)).draw()?;
    // A quarter of the points are as many as can be told apart.
    let points = || course.points.iter().step_by(4);
    let needed = points().map(|point| (point.at / 60.0, settings.workers_for(point.rate) as f64));
    chart.draw_series(LineSeries::new(thinned(needed), NEEDED.stroke_width(1)))?;
    let delays = points().map(|point| (point.at / 60.0, point.delay));
    chart.draw_secondary_series(LineSeries::new(thinned(delays), DELAY.stroke_width(1)))?;
    // Some panels have more workers than fit: they are at the top.
    let workers = points().map(|point| (point.at / 60.0, (point.workers as f64).min(most_workers)));
    chart.draw_series(LineSeries::new(thinned(workers), WORKERS.stroke_width(2)))?;
    Ok(())
}

/// A line without the points on straight stretches of it, where the value stays.
fn thinned(points: impl Iterator<Item = (f64, f64)>) -> Vec<(f64, f64)> {
    let all: Vec<(f64, f64)> = points.map(|(x, y)| (x, (y * 10.0).round() / 10.0)).collect();
    let is_kept = |index: usize| match (index.checked_sub(1).and_then(|before| all.get(before)), all.get(index + 1)) {
        (Some(before), Some(after)) => before.1 != all[index].1 || after.1 != all[index].1,
        _ => true,
    };
    (0..all.len()).filter(|index| is_kept(*index)).map(|index| all[index]).collect()
}

fn bars<B: DrawingBackend>(area: &DrawingArea<B, Shift>, plans: &[Sized]) -> Result<()>
where
    B::ErrorType: 'static,
{
    let Some(first) = plans.first() else { return Ok(()) };
    let parts: Vec<&str> = first.dollars.iter().map(|part| part.part).collect();
    let dollars = |plan: &Sized, part: &str| {
        plan.dollars.iter().find(|one| one.part == part).map_or(0.0, |one| one.on_demand / 1e3)
    };
    let most = plans.iter().flat_map(|plan| parts.iter().map(|part| dollars(plan, part))).fold(1.0, f64::max);
    let mut chart = ChartBuilder::on(area)
        .caption("Thousands of dollars a month by part, with the table on demand", (FONT, 16))
        .margin(8)
        .x_label_area_size(28)
        .y_label_area_size(60)
        .build_cartesian_2d(0.0..parts.len() as f64, 0.0..round_up(most))?;
    let name = |at: &f64| parts.get((at - 0.5).round() as usize).copied().unwrap_or_default().to_owned();
    chart
        .configure_mesh()
        .disable_x_mesh()
        .disable_x_axis()
        .y_labels(6)
        .y_label_formatter(&|value| figure(*value))
        .label_style((FONT, 12))
        .draw()?;
    let width = 0.8 / plans.len() as f64;
    for (index, plan) in plans.iter().enumerate() {
        let color = APPROACHES[index % APPROACHES.len()];
        let bar = |(place, part): (usize, &&str)| {
            let left = place as f64 + 0.1 + index as f64 * width;
            Rectangle::new([(left, 0.0), (left + width, dollars(plan, part))], color.filled())
        };
        chart
            .draw_series(parts.iter().enumerate().map(bar))?
            .label(Approach::name(plan.approach))
            .legend(move |(x, y)| Rectangle::new([(x, y - 5), (x + 12, y + 5)], color.filled()));
    }
    for place in 0..parts.len() {
        let middle = place as f64 + 0.5;
        let (x, y) = chart.backend_coord(&(middle, 0.0));
        let style = (FONT, 12).into_text_style(area).pos(plotters::style::text_anchor::Pos::new(
            plotters::style::text_anchor::HPos::Center,
            plotters::style::text_anchor::VPos::Top,
        ));
        let (left, top) = area.get_base_pixel();
        area.draw(&Text::new(name(&middle), (x - left, y - top + 6), style))?;
    }
    chart.configure_series_labels().label_font((FONT, 12)).background_style(WHITE).draw()?;
    Ok(())
}
