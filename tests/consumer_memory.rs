//! A consumer of two hundred partitions, each full of batches of one mebibyte, stays within its
//! bound, measured by the process's resident memory. The broker is a process of its own.
#![cfg(target_os = "linux")]

mod broker;

use std::{fs, time::Duration};

use broker::Broker;
use ottla::{Consumer, TopicPartition};

const MIB: usize = 1 << 20;
const PARTITIONS: i32 = 200;
/// Memory beyond the bound: sockets, and memory that the allocator keeps. The pages of the
/// program's own file are not counted, because their number depends on the build.
const BESIDE: usize = 10 * MIB;

/// Returns a line of `/proc/self/status`, in bytes.
fn status(name: &str) -> usize {
    let status = fs::read_to_string("/proc/self/status").expect("procfs");
    let line = status.lines().find_map(|line| line.strip_prefix(name)).expect("the line");
    let kilobytes = line.trim_start_matches(':').trim().trim_end_matches(" kB");
    kilobytes.parse::<usize>().expect("a number") * 1024
}

#[tokio::test]
async fn resident_memory_stays_within_queued_max_bytes() {
    let source = Broker::start(["--serve", &format!("big:{PARTITIONS}:16:65536")]);
    for bound in [32 * MIB, 64 * MIB] {
        let builder = Consumer::builder(source.address.as_str()).queued_max_bytes(bound).max_poll_records(16);
        let consumer = builder.build().await.expect("a consumer");
        let all = (0..PARTITIONS).map(|partition| (TopicPartition::new("big", partition), 0));
        consumer.assign(all).expect("assigned");
        let mut seen = vec![0_usize; PARTITIONS as usize];
        let mut polls = 0;
        while seen.iter().any(|count| *count < 32) {
            if polls % 50 == 0 {
                // Leaves time for all that can be fetched ahead.
                tokio::time::sleep(Duration::from_millis(300)).await;
            }
            polls += 1;
            let records = consumer.poll(Duration::from_secs(30)).await.expect("no error");
            assert!(!records.is_empty(), "the consumer never stalls");
            for record in &records {
                seen[record.partition() as usize] += 1;
            }
        }
        let peak = status("VmHWM").saturating_sub(status("RssFile"));
        println!("bound {} MiB: {} MiB resident at most", bound / MIB, peak / MIB);
        assert!(peak <= bound + BESIDE, "{peak} bytes were resident where the bound is {bound}");
        assert!(peak >= bound / 2, "the consumer reads ahead: {peak} bytes of {bound}");
        consumer.close(Duration::from_secs(10)).await.expect("closed");
    }
}
