//! What the figures were measured on.

use std::{env, fs, thread};

/// The machine and its state, as lines of text.
#[derive(Debug, Clone)]
pub(crate) struct Machine {
    processor: String,
    processors: usize,
    memory: String,
    kernel: String,
    load: String,
    date: String,
}

impl Machine {
    pub(crate) fn here() -> Self {
        let cpuinfo = read("/proc/cpuinfo");
        let meminfo = read("/proc/meminfo");
        let kibibytes: u64 = field(&meminfo, "MemTotal")
            .and_then(|value| value.strip_suffix(" kB")?.parse().ok())
            .unwrap_or_default();
        Self {
            processor: field(&cpuinfo, "model name")
                .unwrap_or(env::consts::ARCH)
                .to_owned(),
            processors: thread::available_parallelism().map_or(1, usize::from),
            memory: format!("{} GiB", kibibytes.div_ceil(1024 * 1024)),
            kernel: read("/proc/sys/kernel/osrelease").trim().to_owned(),
            load: read("/proc/loadavg")
                .split(' ')
                .next()
                .unwrap_or_default()
                .to_owned(),
            date: utc_date(),
        }
    }

    pub(crate) fn lines(&self) -> [String; 4] {
        [
            format!("date: {}", self.date),
            format!(
                "processor: {}, {} of them, {} of memory",
                self.processor, self.processors, self.memory
            ),
            format!("kernel: Linux {}", self.kernel),
            format!("load average when the run began: {}", self.load),
        ]
    }
}

fn read(path: &str) -> String {
    fs::read_to_string(path).unwrap_or_default()
}

/// The value in the first `NAME: VALUE` line of that name.
fn field<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    text.lines()
        .filter_map(|line| line.split_once(':'))
        .find(|(key, _)| key.trim() == name)
        .map(|(_, value)| value.trim())
}

/// Today, `2026-01-31`.
fn utc_date() -> String {
    let seconds = std::time::UNIX_EPOCH
        .elapsed()
        .unwrap_or_default()
        .as_secs();
    civil_date(seconds / 86_400)
}

/// Date of a day counted from 1970-01-01: years of 365.2425 days that begin
/// in March, so that the leap day comes last (Hinnant, `civil_from_days`).
fn civil_date(day: u64) -> String {
    let day = day + 719_468;
    let (era, day) = (day / 146_097, day % 146_097);
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let day_of_month = day - (153 * month + 2) / 5 + 1;
    let (month, later) = if month < 10 {
        (month + 3, 0)
    } else {
        (month - 9, 1)
    };
    format!(
        "{:04}-{month:02}-{day_of_month:02}",
        era * 400 + year + later
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates() {
        for (day, date) in [
            (0, "1970-01-01"),
            (58, "1970-02-28"),
            (59, "1970-03-01"),
            (11_016, "2000-02-29"),
            (11_017, "2000-03-01"),
            (19_782, "2024-02-29"),
            (20_453, "2025-12-31"),
        ] {
            assert_eq!(civil_date(day), date);
        }
    }

    #[test]
    fn fields_are_found_by_name() {
        let text = "processor\t: 0\nmodel name\t: Some CPU: fast\nmodel name : Other\n";
        assert_eq!(field(text, "model name"), Some("Some CPU: fast"));
        assert_eq!(field(text, "model"), None);
    }
}
