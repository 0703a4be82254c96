//! The machine that the comparison ran on, as far as the system reports it.

use std::{fs, thread};

#[derive(Clone, Debug)]
pub struct Machine {
    pub cpu: String,
    pub cores: usize,
    pub kernel: String,
    /// Load of the last minute, before anything was started, caused by other programs.
    pub load: Option<f64>,
}

impl Machine {
    pub fn look() -> Self {
        let cpu = fs::read_to_string("/proc/cpuinfo").ok().and_then(|text| model(&text));
        let release = fs::read_to_string("/proc/sys/kernel/osrelease").ok();
        let load = fs::read_to_string("/proc/loadavg").ok();
        Self {
            load: load.and_then(|text| text.split_whitespace().next()?.parse().ok()),
            cpu: cpu.unwrap_or_else(|| format!("unknown {}", std::env::consts::ARCH)),
            cores: thread::available_parallelism().map_or(1, usize::from),
            kernel: release.map_or_else(
                || std::env::consts::OS.to_owned(),
                |release| format!("{} {}", std::env::consts::OS, release.trim()),
            ),
        }
    }

    pub fn line(&self) -> String {
        let load = self.load.map_or(String::new(), |load| format!(", load before {load:.2}"));
        format!("{}, {} cores, {}{load}", self.cpu, self.cores, self.kernel)
    }
}

fn model(cpuinfo: &str) -> Option<String> {
    let line = cpuinfo.lines().find(|line| line.starts_with("model name"))?;
    Some(line.split_once(':')?.1.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_processor_model_from_cpuinfo() {
        assert_eq!(
            model("processor\t: 0\nmodel name\t: Fast CPU @ 3 GHz\nmodel name\t: B\n").unwrap(),
            "Fast CPU @ 3 GHz"
        );
        assert_eq!(model("Hardware : other\n"), None);
    }
}
