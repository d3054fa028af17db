use super::*;

const BYTES: usize = 100;

/// A log with its senders and reader, for injecting faults.
struct Log {
    sent: Vec<Sent>,
    checker: Checker,
    offsets: Vec<i64>,
}

impl Log {
    fn new(producers: u32, partitions: u32, retention: bool) -> Self {
        Self {
            sent: vec![Sent::new(partitions); producers as usize],
            checker: Checker::new(producers, partitions, Filling::new(BYTES), retention),
            offsets: vec![0; partitions as usize],
        }
    }

    /// Returns a value to send, its checksum and its sequence number.
    fn make(&mut self, producer: u32, partition: u32) -> (Vec<u8>, u32, u64) {
        let sequence = self.sent[producer as usize].next_sequence(partition);
        let mut values = super::super::payload::Values::new(Filling::new(BYTES));
        let mut chunk = values.begin();
        let crc = chunk.stamp(&Stamp { producer, partition, sequence, intended: 0, slot: 0 });
        (chunk.finish()[..BYTES].to_vec(), crc, sequence)
    }

    fn acknowledged(&mut self, producer: u32, partition: u32) -> Vec<u8> {
        let (value, crc, _) = self.make(producer, partition);
        self.sent[producer as usize].acknowledged(partition, crc);
        value
    }

    fn failed(&mut self, producer: u32, partition: u32) -> Vec<u8> {
        let (value, crc, sequence) = self.make(producer, partition);
        self.sent[producer as usize].failed(partition, sequence, crc);
        value
    }

    fn read(&mut self, partition: u32, value: &[u8]) {
        let offset = self.offsets[partition as usize];
        self.offsets[partition as usize] += 1;
        self.checker.read(partition, offset, value);
    }

    fn verdict(&self) -> Verdict {
        self.checker.verdict(&self.sent)
    }
}

#[test]
fn records_read_as_sent_pass_the_check() {
    let mut log = Log::new(3, 4, false);
    for n in 0..120 {
        let value = log.acknowledged(n % 3, n % 4);
        log.read(n % 4, &value);
    }
    assert!(log.checker.has(&log.sent));
    assert_eq!(log.verdict(), Verdict::default());
}

#[test]
fn a_record_missing_in_the_middle_or_at_the_end_is_lost() {
    let mut log = Log::new(1, 1, false);
    let values: Vec<_> = (0..10).map(|_| log.acknowledged(0, 0)).collect();
    for (n, value) in values.iter().enumerate() {
        if n != 4 && n < 8 {
            log.read(0, value);
        }
    }
    assert!(!log.checker.has(&log.sent));
    assert_eq!(log.verdict(), Verdict { lost: 3, ..Verdict::default() });
}

#[test]
fn a_record_read_twice_is_duplicated() {
    let mut log = Log::new(1, 1, false);
    let values: Vec<_> = (0..5).map(|_| log.acknowledged(0, 0)).collect();
    for n in [0, 1, 2, 1, 3, 4, 4] {
        log.read(0, &values[n]);
    }
    assert_eq!(log.verdict(), Verdict { duplicated: 2, ..Verdict::default() });
}

#[test]
fn records_read_out_of_order_are_reordered_and_not_lost() {
    let mut log = Log::new(1, 1, false);
    let values: Vec<_> = (0..6).map(|_| log.acknowledged(0, 0)).collect();
    for n in [0, 2, 1, 5, 3, 4] {
        log.read(0, &values[n]);
    }
    assert!(log.checker.has(&log.sent));
    assert_eq!(log.verdict(), Verdict { reordered: 3, ..Verdict::default() });
}

#[test]
fn a_failed_record_may_be_read_at_most_once() {
    for times in 0..3 {
        let mut log = Log::new(1, 1, false);
        let first = log.acknowledged(0, 0);
        let failed = log.failed(0, 0);
        let last = log.acknowledged(0, 0);
        log.read(0, &first);
        for _ in 0..times {
            log.read(0, &failed);
        }
        log.read(0, &last);
        let duplicated = u64::from(times == 2);
        assert_eq!(log.verdict(), Verdict { duplicated, ..Verdict::default() }, "{times} times");
    }
}

#[test]
fn a_changed_byte_and_a_wrong_partition_are_found() {
    let mut log = Log::new(1, 2, false);
    let (mut first, second) = (log.acknowledged(0, 0), log.acknowledged(0, 1));
    first[60] ^= 1;
    log.read(0, &first);
    log.read(0, &second);
    assert_eq!(log.verdict(), Verdict { altered: 2, lost: 2, ..Verdict::default() });
}

#[test]
fn a_substituted_record_is_found_by_the_sum_of_hashes() {
    let mut log = Log::new(1, 1, false);
    log.acknowledged(0, 0);
    let mut other = log.make(0, 0).0;
    log.sent[0].lanes[0].next = 1;
    let (mut stamp, _) = Stamp::read(&other).expect("stamped");
    (stamp.sequence, stamp.intended) = (0, 99);
    stamp.write(&mut other);
    log.read(0, &other);
    assert_eq!(log.verdict(), Verdict { altered: 1, ..Verdict::default() });
}

#[test]
fn records_removed_by_retention_are_not_lost_but_other_gaps_are() {
    let mut log = Log::new(2, 1, true);
    let values: Vec<_> = (0..20).map(|n| log.acknowledged(n % 2, 0)).collect();
    for n in 8..20 {
        log.checker.read(0, n, &values[n as usize]);
    }
    assert_eq!(log.verdict(), Verdict::default());

    let mut log = Log::new(2, 1, true);
    let values: Vec<_> = (0..20).map(|n| log.acknowledged(n % 2, 0)).collect();
    for (offset, value) in (0..).zip(&values[8..]) {
        log.checker.read(0, offset, value);
    }
    assert_eq!(log.verdict().lost, 8);
}
