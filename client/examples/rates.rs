//! Measures the throughput of producing and consuming, with a broker in the same process:
//! `cargo run --release -p highwater-client --example rates -- [records] [bytes]`.

use std::time::{Duration, Instant};

use bytes::Bytes;
use highwater_client::{Client, Compression, Record, Start};
use highwater_engine::TestBroker;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = std::env::args().skip(1).map(|arg| arg.parse::<usize>());
    let records = args.next().transpose()?.unwrap_or(2_000_000);
    let bytes = args.next().transpose()?.unwrap_or(100);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let broker = TestBroker::start();
    for (codec, keyed) in [
        (Compression::None, false),
        (Compression::None, true),
        (Compression::Lz4, true),
        (Compression::Zstd, true),
    ] {
        runtime.block_on(measure(&broker.address(), codec, keyed, records, bytes))?;
    }
    Ok(())
}

async fn measure(
    address: &str,
    codec: Compression,
    keyed: bool,
    records: usize,
    bytes: usize,
) -> Result<(), Box<dyn std::error::Error>> {
    let client = Client::connect(address).await?;
    let topic = format!("rates-{codec}-{keyed}");
    client.create_topic(&topic).partitions(4).await?;
    let producer = client.producer(&topic).compression(codec).await?;
    let keys: Vec<Bytes> = (0..1000).map(|n| format!("user-{n}").into()).collect();
    // Half random bytes, half text: compresses to about half its size.
    let noise: Vec<u8> =
        (0..bytes + 64 * 1024).map(|at| ((at * 2_654_435_761) >> (at % 11 + 7)) as u8).collect();
    let noise = Bytes::from(noise);

    let (start, cpu) = (Instant::now(), cpu_time());
    for n in 0..records {
        let at = (n * 61) % (64 * 1024);
        let mut record = Record::new(noise.slice(at..at + bytes));
        if keyed {
            record = record.key(keys[n % keys.len()].clone());
        }
        producer.send(record).await?;
    }
    let taken = start.elapsed();
    producer.close(Duration::from_mins(1)).await?;
    report(&format!("{topic} produced, taken after {taken:.2?}"), records, bytes, start, cpu);

    let (start, cpu) = (Instant::now(), cpu_time());
    let mut consumer = client.consumer(&topic).start(Start::Earliest).until_end().await?;
    let (mut count, mut sum) = (0, 0_u64);
    while let Some(batch) = consumer.next_batch().await? {
        for record in &batch {
            count += 1;
            sum += record.value().len() as u64;
        }
    }
    assert_eq!((count, sum), (records, (records * bytes) as u64));
    report(&format!("{topic} consumed"), records, bytes, start, cpu);
    let metrics = client.metrics();
    println!(
        "{:44} {} batches of {} bytes; p50 {:?}, p99 {:?}",
        "",
        metrics.batches_acknowledged,
        metrics.batch_bytes_sent / metrics.batches_acknowledged.max(1),
        metrics.produce_latency.quantile(0.5),
        metrics.produce_latency.quantile(0.99)
    );
    Ok(())
}

fn report(what: &str, records: usize, bytes: usize, start: Instant, cpu: f64) {
    let (took, cpu) = (start.elapsed().as_secs_f64(), cpu_time() - cpu);
    println!(
        "{what:44} {:>7.2} M records/s {:>8.1} MB/s, {:.0} ns of CPU a record in this thread",
        records as f64 / took / 1e6,
        (records * bytes) as f64 / took / 1e6,
        cpu * 1e9 / records as f64,
    );
}

/// Returns the CPU time this thread has used, in seconds. This is the client's share; the broker has its own threads.
fn cpu_time() -> f64 {
    let stat = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    stat.split(' ').next().and_then(|ns| ns.parse::<f64>().ok()).unwrap_or(0.0) / 1e9
}
