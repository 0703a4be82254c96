//! Closes batches: compresses and checksums them. Small batches are sealed at once; larger ones on
//! blocking threads, in parallel over the partitions of a request.

use std::{
    collections::VecDeque,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::{sync::Semaphore, task::JoinHandle};

use super::{
    counters::Counters,
    sender::{ProduceRequest, RequestPart},
};
use crate::producer::batch_body::Body;
use crate::{
    error::{Error, ErrorKind, Result, said},
    log::event,
    wire::{
        Compression,
        batch::{BatchBuilder, Compressor, SealedBatch},
    },
};

/// A codec's state in a box, because some are large and each is taken out and put back for every
/// request.
type BoxedCompressor = Box<Compressor>;

/// The idle states of the codec, and the number of threads that may seal at once.
pub(super) struct Sealing {
    compression: Compression,
    counters: Arc<Counters>,
    idle: Mutex<Vec<BoxedCompressor>>,
    cores: usize,
    permits: Arc<Semaphore>,
}

impl Sealing {
    pub(super) fn new(compression: Compression, counters: Arc<Counters>) -> Result<Self> {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let idle = Mutex::new(vec![Box::new(Compressor::new(compression)?)]);
        Ok(Self { compression, counters, idle, cores, permits: Arc::new(Semaphore::new(cores)) })
    }

    /// Returns true if sealing the batches takes no longer than handing them to another thread.
    pub(super) fn is_small(&self, parts: &[RequestPart]) -> bool {
        self.compression == Compression::None || parts.iter().map(unsealed).sum::<usize>() <= self.worth_a_thread()
    }

    /// Returns the number of bytes that take about 30 µs.
    fn worth_a_thread(&self) -> usize {
        match self.compression {
            Compression::Gzip(_) => 4 * 1024,
            Compression::Zstd(_) => 16 * 1024,
            Compression::None | Compression::Snappy | Compression::Lz4 => 32 * 1024,
        }
    }

    /// Seals on the current thread.
    pub(super) fn seal(&self, parts: &mut [RequestPart]) {
        let mut compressor = None;
        for part in parts {
            if !matches!(part.body, Ok(Body::Open(_))) {
                // Sealed for an earlier attempt.
                continue;
            }
            let body = std::mem::replace(&mut part.body, Ok(Body::Lent(part.revocable.clone())));
            let Ok(Body::Open(builder)) = body else { continue };
            part.body = match compressor.take().unwrap_or_else(|| self.compressor()) {
                Ok(mut state) => match sealed(builder, &mut state, part, &self.counters) {
                    Ok(sealed) => {
                        compressor = Some(Ok(state));
                        sealed.inspect(|sealed| self.counters.sealed(sealed)).map(Body::Sealed)
                    }
                    // The state is unknown after a panic, so the next batch gets another one.
                    Err(panic) => Err(panic),
                },
                Err(error) => {
                    compressor = Some(Err(error.clone()));
                    Err(error)
                }
            };
        }
        if let Some(Ok(compressor)) = compressor {
            self.lock().push(compressor);
        }
    }

    /// Seals on blocking threads: in parallel if there is enough work, and never on more threads
    /// than there are cores, regardless of the number of requests.
    ///
    /// Dropping the future drops the request.
    pub(super) async fn seal_elsewhere(self: Arc<Self>, mut request: ProduceRequest) -> ProduceRequest {
        let mut shares: VecDeque<(Vec<RequestPart>, JoinHandle<Vec<RequestPart>>)> = VecDeque::new();
        for mut share in self.shares(std::mem::take(&mut request.parts)) {
            let heads = share.iter().map(head).collect();
            let permit = self.permits.clone().acquire_owned().await;
            let sealing = self.clone();
            let work = tokio::task::spawn_blocking(move || {
                let _permit = permit;
                sealing.seal(&mut share);
                share
            });
            shares.push_back((heads, work));
        }
        for (mut heads, work) in shares {
            match work.await {
                Ok(mut sealed) => request.parts.append(&mut sealed),
                // The runtime shuts down, and the bytes are lost.
                Err(failure) => {
                    let error = Error::new(ErrorKind::Internal, "a batch could not be compressed").with_source(failure);
                    heads.iter_mut().for_each(|part| part.body = Err(error.clone()));
                    request.parts.append(&mut heads);
                }
            }
        }
        request
    }

    /// Divides the parts, in order, into shares of about equal size: one for each core, if each is
    /// worth a thread.
    fn shares(&self, parts: Vec<RequestPart>) -> Vec<Vec<RequestPart>> {
        let mut left: usize = parts.iter().map(unsealed).sum();
        let mut count = (left / self.worth_a_thread()).clamp(1, self.cores);
        let mut shares = Vec::with_capacity(count);
        let (mut share, mut size) = (Vec::new(), 0);
        for part in parts {
            let bytes = unsealed(&part);
            // The part begins a new share if that comes closer to an equal share.
            if count > 1 && !share.is_empty() && size + bytes / 2 > left / count {
                shares.push(std::mem::take(&mut share));
                left -= std::mem::take(&mut size);
                count -= 1;
            }
            size += bytes;
            share.push(part);
        }
        shares.push(share);
        shares
    }

    fn compressor(&self) -> Result<BoxedCompressor> {
        let idle = self.lock().pop();
        idle.map_or_else(|| Compressor::new(self.compression).map(Box::new), Ok)
    }

    fn lock(&self) -> MutexGuard<'_, Vec<BoxedCompressor>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Seals one batch. A panic of the codec (the outer error) fails only this batch, not the others of
/// the request, and not the producer.
fn sealed(
    builder: BatchBuilder,
    compressor: &mut Compressor,
    part: &RequestPart,
    counters: &Counters,
) -> Result<Result<SealedBatch>> {
    let seal = || {
        #[cfg(test)]
        assert_ne!(part.records, tests::UNLUCKY, "the test's codec panics for a batch of this size");
        builder.seal(compressor)
    };
    catch_unwind(AssertUnwindSafe(seal)).map_err(|panic| {
        let (topic, partition, records, said) = (&*part.topic, part.partition, part.records, said(&*panic));
        if let Some(suppressed) = counters.admit_line("codec", tokio::time::Instant::now().into_std()) {
            event!(
                ERROR,
                counters.origin(),
                topic,
                partition,
                records,
                suppressed,
                "a codec panicked: {said}; the records of the batch fail"
            );
        }
        Error::new(ErrorKind::Internal, format!("{topic}[{partition}]: the codec panicked: {said}"))
    })
}

/// Returns the number of bytes that are still to be sealed.
fn unsealed(part: &RequestPart) -> usize {
    match &part.body {
        Ok(Body::Open(builder)) => builder.size(),
        _ => 0,
    }
}

/// Returns the part without its body.
fn head(part: &RequestPart) -> RequestPart {
    RequestPart {
        slot: part.slot,
        topic: part.topic.clone(),
        topic_id: part.topic_id,
        partition: part.partition,
        body: Ok(Body::Lent(part.revocable.clone())),
        stamp: part.stamp,
        revocable: part.revocable.clone(),
        withdrawn: part.withdrawn,
        records: part.records,
        attempt: part.attempt,
        begun: part.begun,
    }
}

#[cfg(test)]
pub(super) mod tests {
    use uuid::Uuid;

    use super::*;
    use crate::{
        producer::{batch_shared::BatchShared, revocable_batch::RevocableBatch},
        wire::batch::{BatchBuilder, ProducerStamp, RecordParts},
    };

    /// A batch of that number of records makes every codec panic.
    pub(in crate::producer) const UNLUCKY: u32 = 1313;

    fn part(partition: i32, bytes: usize) -> RequestPart {
        let mut builder = BatchBuilder::with_capacity(bytes);
        builder.append(&RecordParts { key: None, value: Some(&vec![b'x'; bytes]), record: None }, 1);
        RequestPart {
            slot: partition as usize,
            topic: "t".into(),
            topic_id: Uuid::nil(),
            partition,
            body: Ok(Body::Open(builder)),
            stamp: ProducerStamp::NONE,
            revocable: RevocableBatch::next(&BatchShared::new(1 << 20).new_cell()),
            withdrawn: false,
            records: 1,
            attempt: 1,
            begun: None,
        }
    }

    fn sealing(cores: usize) -> Arc<Sealing> {
        Arc::new(Sealing { cores, ..Sealing::new(Compression::Lz4, Arc::default()).unwrap() })
    }

    fn sizes(sealing: &Sealing, parts: &[usize]) -> Vec<Vec<i32>> {
        let parts = parts.iter().enumerate().map(|(i, size)| part(i as i32, *size)).collect();
        sealing.shares(parts).iter().map(|share| share.iter().map(|part| part.partition).collect()).collect()
    }

    #[test]
    fn distributes_parts_by_bytes_in_order() {
        let (one, two) = (sealing(1), sealing(2));
        assert_eq!(sizes(&one, &[40_000, 40_000]), [[0, 1]]);
        assert_eq!(sizes(&two, &[40_000, 40_000]), [[0], [1]]);
        assert_eq!(sizes(&two, &[20_000, 20_000]), [[0, 1]], "a smaller share would not be worth a thread");
        assert_eq!(sizes(&two, &[90_000, 30_000, 30_000, 30_000]), vec![vec![0], vec![1, 2, 3]]);
        assert_eq!(sizes(&two, &[10, 10, 200_000]), vec![vec![0, 1], vec![2]]);
        assert_eq!(sizes(&sealing(8), &[500_000]), [[0]]);
    }

    #[tokio::test]
    async fn sealing_on_other_threads_keeps_order() {
        let sealing = sealing(3);
        let parts = (0..20).map(|i| part(i, 9000)).collect();
        let request = ProduceRequest { id: 7, node: 3, parts };
        assert!(!sealing.is_small(&request.parts));
        let sealed = sealing.clone().seal_elsewhere(request).await;
        assert_eq!((sealed.id, sealed.node), (7, 3));
        let order: Vec<i32> = sealed.parts.iter().map(|part| part.partition).collect();
        assert_eq!(order, (0..20).collect::<Vec<_>>());
        assert!(sealed.parts.iter().all(|part| matches!(&part.body, Ok(Body::Sealed(batch)) if batch.size() < 9000)));
        assert_eq!(sealing.permits.available_permits(), std::thread::available_parallelism().map_or(1, usize::from));
        assert!(sealing.is_small(&sealed.parts), "sealed bodies are used again");
    }
}
