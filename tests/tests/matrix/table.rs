//! The table of all cells, one row for each path of each pod network.

use std::{
    collections::BTreeMap,
    fmt::Write,
    sync::{Mutex, PoisonError},
};

use egress_lab::Cni;

use crate::{cell::Cell, paths::PATHS};

/// Whether a path of a pod network (by its place in [`Cni::ALL`]) was good in
/// a column.
type Results = BTreeMap<(usize, &'static str, Cell), bool>;

static RESULTS: Mutex<Results> = Mutex::new(BTreeMap::new());

fn place(cni: Cni) -> Option<usize> {
    Cni::ALL.iter().position(|known| *known == cni)
}

/// Notes what came out.
pub(crate) fn record(cell: Cell, cni: Cni, path: &'static str, good: bool) {
    if let Some(place) = place(cni) {
        let mut results = RESULTS.lock().unwrap_or_else(PoisonError::into_inner);
        results.insert((place, path, cell), good);
    }
}

/// The table; empty when no cell was tried.
pub(crate) fn rendered() -> String {
    let results = RESULTS.lock().unwrap_or_else(PoisonError::into_inner);
    let mut text = String::new();
    if results.is_empty() {
        return text;
    }
    let columns = Cell::all();
    let (names, paths) = (20, 30);
    let mut header = |label: &str, of: &dyn Fn(&Cell) -> String| {
        let cells: String = columns
            .iter()
            .map(|cell| format!("{:>6}", of(cell)))
            .collect();
        let _ = writeln!(text, "{:names$}{label:paths$}{cells}", "");
    };
    header("", &|cell| cell.family());
    header("rp_filter at start", &|cell| match cell.family().as_str() {
        "IPv6" => "-".to_owned(),
        _ => cell.rp_filter.to_string(),
    });
    header("forwarding at start", &|cell| cell.forwarding.to_string());
    for (place, cni) in Cni::ALL.iter().enumerate() {
        for path in &PATHS {
            let cells: String = columns
                .iter()
                .map(|cell| match results.get(&(place, path.name, *cell)) {
                    Some(true) => "    ok",
                    Some(false) => "  FAIL",
                    None => "     .",
                })
                .collect();
            let _ = writeln!(
                text,
                "{:names$}{:paths$}{cells}",
                cni.to_string(),
                path.name
            );
        }
    }
    let good = results.values().filter(|good| **good).count();
    let _ = writeln!(
        text,
        "\n{good} of {} cells good, each with a macvlan that the router made \
        and with one that was there",
        results.len()
    );
    text
}
