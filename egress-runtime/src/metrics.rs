//! The metrics every program serves, by the Prometheus conventions for names.

use std::fmt;
use std::fs;
use std::sync::atomic::AtomicU64;
use std::time::{SystemTime, UNIX_EPOCH};

use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeValLike;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::counter::{ConstCounter, Counter};
use prometheus_client::metrics::gauge::{ConstGauge, Gauge};
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::{Registry, Unit};

/// A registry with `egress_build_info{version}` and the `process_*` metrics.
/// `started` is when the process began.
#[must_use]
pub fn registry(version: &'static str, started: SystemTime) -> Registry {
    let mut registry = Registry::default();
    registry.register(
        "egress_build",
        "The running program",
        Info::new(vec![("version", version)]),
    );
    registry.register_collector(Box::new(Process { started }));
    registry
}

/// Counts what became of reloads of the configuration. Clones share counts.
///
/// `egress_config_reloads_total` counts attempts, failed ones included, so
/// that failures divided by reloads is a rate.
#[derive(Clone, Debug)]
pub struct ConfigReloads {
    reloads: Counter,
    failures: Counter,
    last_success: Gauge<f64, AtomicU64>,
}

impl ConfigReloads {
    /// Registers the three metrics. `loaded` is when the configuration was
    /// first loaded: the last success until a reload succeeds.
    #[must_use]
    pub fn register(registry: &mut Registry, loaded: SystemTime) -> Self {
        let metrics = Self {
            reloads: Counter::default(),
            failures: Counter::default(),
            last_success: Gauge::default(),
        };
        metrics.last_success.set(unix_seconds(loaded));
        registry.register(
            "egress_config_reloads",
            "Attempts to reload the configuration",
            metrics.reloads.clone(),
        );
        registry.register(
            "egress_config_reload_failures",
            "Reloads that were refused and left the old configuration in force",
            metrics.failures.clone(),
        );
        registry.register_with_unit(
            "egress_config_last_reload_success_timestamp",
            "When the configuration in force was loaded, in seconds since 1970",
            Unit::Seconds,
            metrics.last_success.clone(),
        );
        metrics
    }

    /// A reload put a new configuration in force at `now`.
    pub fn succeeded(&self, now: SystemTime) {
        self.reloads.inc();
        self.last_success.set(unix_seconds(now));
    }

    /// A reload was refused; the old configuration stays in force.
    pub fn failed(&self) {
        self.reloads.inc();
        self.failures.inc();
    }
}

/// The metrics that Prometheus' client libraries give every process, read when
/// they are scraped. What /proc does not tell is left out.
#[derive(Debug)]
struct Process {
    started: SystemTime,
}

impl Collector for Process {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let started = ConstGauge::new(unix_seconds(self.started));
        started.encode(encoder.encode_descriptor(
            "process_start_time",
            "When the process started, in seconds since 1970.",
            Some(&Unit::Seconds),
            started.metric_type(),
        )?)?;
        if let Some(seconds) = cpu_seconds() {
            let cpu = ConstCounter::new(seconds);
            cpu.encode(encoder.encode_descriptor(
                "process_cpu",
                "Processor time used in user and kernel mode.",
                Some(&Unit::Seconds),
                cpu.metric_type(),
            )?)?;
        }
        if let Some(bytes) = resident_bytes() {
            let resident = ConstGauge::new(bytes);
            resident.encode(encoder.encode_descriptor(
                "process_resident_memory",
                "Resident memory.",
                Some(&Unit::Bytes),
                resident.metric_type(),
            )?)?;
        }
        if let Some(count) = open_files() {
            let files = ConstGauge::new(count);
            files.encode(encoder.encode_descriptor(
                "process_open_fds",
                "Open file descriptors.",
                None,
                files.metric_type(),
            )?)?;
        }
        Ok(())
    }
}

/// A time before 1970 is a clock that was never set: 0.
fn unix_seconds(time: SystemTime) -> f64 {
    time.duration_since(UNIX_EPOCH)
        .map_or(0.0, |since| since.as_secs_f64())
}

fn cpu_seconds() -> Option<f64> {
    let usage = getrusage(UsageWho::RUSAGE_SELF).ok()?;
    let used = usage.user_time() + usage.system_time();
    let whole = u32::try_from(used.num_seconds()).ok()?;
    let micros = u32::try_from(used.num_microseconds() % 1_000_000).ok()?;
    Some(f64::from(whole) + f64::from(micros) / 1e6)
}

/// `VmRSS` of proc_pid_status(5), which is in KiB.
fn resident_bytes() -> Option<u64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let value = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: u64 = value.trim().strip_suffix("kB")?.trim_end().parse().ok()?;
    kib.checked_mul(1024)
}

fn open_files() -> Option<u64> {
    let entries = fs::read_dir("/proc/self/fd").ok()?.count();
    // The listing itself holds one open.
    u64::try_from(entries).ok()?.checked_sub(1)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use prometheus_client::encoding::text::encode;

    use super::*;

    fn text(registry: &Registry) -> String {
        let mut text = String::new();
        encode(&mut text, registry).unwrap();
        text
    }

    fn value(text: &str, name: &str) -> f64 {
        let line = text
            .lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line.unwrap_or_else(|| panic!("no {name} in {text}"))
            .parse()
            .unwrap()
    }

    #[test]
    fn names_the_build_and_describes_the_process() {
        let started = UNIX_EPOCH + Duration::from_millis(1_700_000_000_500);
        let text = text(&registry("1.2.3", started));
        assert_eq!(value(&text, "egress_build_info{version=\"1.2.3\"}"), 1.0);
        assert_eq!(value(&text, "process_start_time_seconds"), 1_700_000_000.5);
        assert!(value(&text, "process_cpu_seconds_total") >= 0.0);
        assert!(value(&text, "process_resident_memory_bytes") > 65_536.0);
        assert!(value(&text, "process_open_fds") >= 3.0);
        assert!(text.ends_with("# EOF\n"));
    }

    #[test]
    fn counts_open_files() {
        let files: Vec<_> = (0..50)
            .map(|_| fs::File::open("/dev/null").unwrap())
            .collect();
        assert!(open_files().unwrap() >= 50);
        drop(files);
    }

    #[test]
    fn counts_attempts_and_failures_and_keeps_the_last_success() {
        let at = |seconds| UNIX_EPOCH + Duration::from_secs(seconds);
        let mut registry = Registry::default();
        let reloads = ConfigReloads::register(&mut registry, at(10));
        let seen = |registry| {
            let text = text(registry);
            [
                value(&text, "egress_config_reloads_total"),
                value(&text, "egress_config_reload_failures_total"),
                value(&text, "egress_config_last_reload_success_timestamp_seconds"),
            ]
        };
        assert_eq!(seen(&registry), [0.0, 0.0, 10.0]);
        reloads.succeeded(at(20));
        reloads.failed();
        assert_eq!(seen(&registry), [2.0, 1.0, 20.0]);
    }
}
