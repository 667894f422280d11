//! Aligned plain tables.

use std::fmt;

/// A table: columns are as wide as their widest cell and two spaces apart.
#[derive(Clone, Debug, Default)]
pub struct Table {
    header: Vec<&'static str>,
    /// Columns of numbers.
    right: Vec<bool>,
    rows: Vec<Vec<String>>,
}

impl Table {
    /// A table with these column titles; a title that starts with `>` stands over a right-aligned column.
    pub fn new(titles: &[&'static str]) -> Table {
        Table {
            header: titles.iter().map(|title| title.trim_start_matches('>')).collect(),
            right: titles.iter().map(|title| title.starts_with('>')).collect(),
            rows: Vec::new(),
        }
    }

    /// Adds a row; it has a cell for every column.
    pub fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        let cells: Vec<String> = cells.into_iter().collect();
        debug_assert_eq!(cells.len(), self.header.len(), "one cell for every column");
        self.rows.push(cells);
    }

    /// Whether it has no rows.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let header: Vec<String> = self.header.iter().map(|&title| title.to_owned()).collect();
        let lines = || std::iter::once(&header).chain(&self.rows);
        let width = |column: usize| lines().filter_map(|l| l.get(column)).map(|c| c.chars().count()).max().unwrap_or(0);
        let widths: Vec<usize> = (0..header.len()).map(width).collect();
        for line in lines() {
            let mut text = String::new();
            for ((cell, &width), &right) in line.iter().zip(&widths).zip(&self.right) {
                if !text.is_empty() {
                    text.push_str("  ");
                }
                text.push_str(&if right { format!("{cell:>width$}") } else { format!("{cell:<width$}") });
            }
            writeln!(f, "{}", text.trim_end())?;
        }
        Ok(())
    }
}

/// `title  value` lines, the values aligned.
#[derive(Clone, Debug, Default)]
pub struct Facts(Vec<(&'static str, String)>);

impl Facts {
    /// Adds a line.
    pub fn add(&mut self, title: &'static str, value: impl ToString) {
        self.0.push((title, value.to_string()));
    }
}

impl fmt::Display for Facts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let width = self.0.iter().map(|(title, _)| title.len()).max().unwrap_or(0);
        for (title, value) in &self.0 {
            writeln!(f, "{}", format!("{title:<width$}  {value}").trim_end())?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned_and_lines_end_without_blanks() {
        let mut table = Table::new(&[">NODE", "HOST", ">LOCKS", "NOTE"]);
        table.row(["3", "böse", "12", ""].map(str::to_owned));
        table.row(["41", "b", "7", "master"].map(str::to_owned));
        assert_eq!(table.to_string(), "NODE  HOST  LOCKS  NOTE\n   3  böse     12\n  41  b         7  master\n");
    }

    #[test]
    fn facts_are_aligned() {
        let mut facts = Facts::default();
        facts.add("node", 3);
        facts.add("lockspace", "default");
        assert_eq!(facts.to_string(), "node       3\nlockspace  default\n");
    }
}
