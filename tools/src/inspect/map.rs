//! `mxlock-inspect PATH map`: how full the table is, and how far records stand from their home slots.

use super::image::Image;
use crate::common::failure::{Code, Failure, without_os_code};
use mxlock_format::{LockRecord, LockState, Mode, RecordError};
use serde::Serialize;
use std::fs::File;
use std::io::BufWriter;
use std::path::Path;

/// Characters of a line, and most lines.
const COLUMNS: u32 = 64;
const LINES: u32 = 16;
/// How full a cell is: from empty to full.
const SHADES: &[u8; 9] = b" .:-=+*#@";
const DAMAGED: char = '!';
/// Longest bar of the histogram.
const BAR: usize = 50;

/// The occupancy of the table and the probe lengths.
#[derive(Serialize, Debug, PartialEq, Eq)]
pub(super) struct Map {
    slot_count: u32,
    used: u32,
    damaged: u32,
    /// Slots that one cell stands for; the last cell may stand for fewer.
    slots_per_cell: u32,
    /// Slots used in each cell, in order.
    cells: Vec<u32>,
    #[serde(skip)]
    damaged_cells: Vec<bool>,
    /// How many records stand how far behind their home slot.
    probe_lengths: Vec<Bucket>,
}

#[derive(Serialize, Debug, PartialEq, Eq)]
struct Bucket {
    from: u32,
    to: u32,
    records: u32,
}

impl Map {
    /// Of an image.
    pub(super) fn of(image: &Image) -> Map {
        let slot_count = image.geometry().slot_count;
        let slots_per_cell = slot_count.div_ceil(COLUMNS * LINES);
        let cells = slot_count.div_ceil(slots_per_cell) as usize;
        let mut map = Map {
            slot_count,
            used: image.slots.len() as u32,
            damaged: image.damaged_slots().count() as u32,
            slots_per_cell,
            cells: vec![0; cells],
            damaged_cells: vec![false; cells],
            probe_lengths: Vec::new(),
        };
        for (slot, record) in &image.slots {
            let cell = (slot / slots_per_cell) as usize;
            map.cells[cell] += 1;
            map.damaged_cells[cell] |= record.is_err();
        }
        for (slot, _) in &image.unreadable {
            map.damaged_cells[(slot / slots_per_cell) as usize] = true;
        }
        for (slot, record) in image.records() {
            map.add_probe_length(image.distance(slot, record));
        }
        map
    }

    /// Buckets 0, 1, 2-3, 4-7, and so on.
    fn add_probe_length(&mut self, distance: u32) {
        let bucket = (u32::BITS - distance.leading_zeros()) as usize;
        while self.probe_lengths.len() <= bucket {
            let (from, to) = match self.probe_lengths.len() {
                0 => (0, 0),
                n => (1 << (n - 1), ((1u64 << n) - 1) as u32),
            };
            self.probe_lengths.push(Bucket { from, to, records: 0 });
        }
        self.probe_lengths[bucket].records += 1;
    }
}

impl std::fmt::Display for Map {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let per_mille = u64::from(self.used) * 1_000 / u64::from(self.slot_count);
        writeln!(
            f,
            "{} of {} slots used ({}.{} %), {} damaged",
            self.used,
            self.slot_count,
            per_mille / 10,
            per_mille % 10,
            self.damaged
        )?;
        writeln!(
            f,
            "one character is {} slots: '{}' from empty to full, '{DAMAGED}' damaged",
            self.slots_per_cell,
            SHADES.escape_ascii()
        )?;
        for (line, cells) in self.cells.chunks(COLUMNS as usize).enumerate() {
            let first = line * COLUMNS as usize;
            let drawn: String = cells.iter().enumerate().map(|(i, &used)| self.draw(first + i, used)).collect();
            writeln!(f, "{:>9} |{drawn}|", first as u64 * u64::from(self.slots_per_cell))?;
        }
        if self.probe_lengths.is_empty() {
            return writeln!(f, "no records");
        }
        writeln!(f, "slots behind the home slot:")?;
        let most = self.probe_lengths.iter().map(|bucket| bucket.records).max().unwrap_or(1) as usize;
        for Bucket { from, to, records } in &self.probe_lengths {
            let label = if from == to { from.to_string() } else { format!("{from}-{to}") };
            let bar = "#".repeat((*records as usize * BAR).div_ceil(most));
            writeln!(f, "{}", format!("{label:>13}  {records:>8}  {bar}").trim_end())?;
        }
        Ok(())
    }
}

impl Map {
    fn draw(&self, cell: usize, used: u32) -> char {
        let last = SHADES.len() as u32 - 1;
        match used {
            _ if self.damaged_cells[cell] => DAMAGED,
            0 => SHADES[0] as char,
            // One record is seen, and only a full cell is drawn full.
            _ => SHADES[(used * last / self.slots_per_cell).max(1) as usize] as char,
        }
    }
}

/// Draws the table with one pixel a slot, row by row.
///
/// # Errors
/// [`Code::CannotCreate`] when the file cannot be written.
pub(super) fn write_png(image: &Image, path: &Path) -> Result<(), Failure> {
    let failed =
        |e: &dyn std::fmt::Display| Failure::new(Code::CannotCreate, format!("cannot write {}: {e}", path.display()));
    let file = File::create(path).map_err(|e| failed(&without_os_code(&e)))?;
    let (width, height, pixels) = picture(image);
    let mut encoder = png::Encoder::new(BufWriter::new(file), width, height);
    encoder.set_color(png::ColorType::Indexed);
    encoder.set_depth(png::BitDepth::Eight);
    encoder.set_palette(PALETTE.concat());
    let mut writer = encoder.write_header().map_err(|e| failed(&e))?;
    writer.write_image_data(&pixels).and_then(|()| writer.finish()).map_err(|e| failed(&e))
}

/// Colours: outside of the table, free, shared, exclusive, waiting or converting, orphan, damaged.
const PALETTE: [[u8; 3]; 7] =
    [[255, 255, 255], [32, 34, 40], [86, 180, 233], [0, 114, 178], [240, 228, 66], [204, 121, 167], [213, 94, 0]];

const DAMAGED_COLOUR: u8 = 6;

/// Width, height, and an index into the palette for every pixel. The width is a power of two near the square root.
fn picture(image: &Image) -> (u32, u32, Vec<u8>) {
    let slot_count = image.geometry().slot_count;
    let width = slot_count.isqrt().next_power_of_two();
    let height = slot_count.div_ceil(width);
    let mut pixels = vec![1; slot_count as usize];
    for (slot, record) in &image.slots {
        pixels[*slot as usize] = colour(record);
    }
    for (slot, _) in &image.unreadable {
        pixels[*slot as usize] = DAMAGED_COLOUR;
    }
    pixels.resize(width as usize * height as usize, 0);
    (width, height, pixels)
}

fn colour(record: &Result<LockRecord, RecordError>) -> u8 {
    match record {
        Err(_) => DAMAGED_COLOUR,
        Ok(record) if record.orphan => 5,
        Ok(record) if record.state != LockState::Granted => 4,
        Ok(record) if matches!(record.mode, Mode::EX | Mode::PW) => 3,
        Ok(_) => 2,
    }
}
