//! Figures as lines for programs and as a table for people.

use std::fmt;
use std::io::Write;

/// Figures in the order in which they were measured.
#[derive(Debug, Default)]
pub(super) struct Report {
    figures: Vec<Figure>,
}

#[derive(Debug)]
struct Figure {
    name: &'static str,
    value: String,
    unit: &'static str,
    meaning: &'static str,
}

impl Report {
    /// Adds a figure and prints its line.
    ///
    /// # Errors
    /// If the output is closed.
    pub(super) fn add(
        &mut self,
        name: &'static str,
        value: f64,
        unit: &'static str,
        meaning: &'static str,
    ) -> std::io::Result<()> {
        let digits = if unit == "ratio" { 3 } else { 1 };
        let value = format!("{value:.digits$}");
        writeln!(std::io::stdout(), "{name} {value} {unit}")?;
        self.figures.push(Figure { name, value, unit, meaning });
        Ok(())
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let width = self.figures.iter().map(|figure| figure.name.len()).max().unwrap_or_default();
        self.figures.iter().try_for_each(|figure| {
            let Figure { name, value, unit, meaning } = figure;
            writeln!(f, "{name:<width$} {value:>9} {unit:<6} {meaning}")
        })
    }
}
