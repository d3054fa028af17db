//! A bounded lock-free queue with a single producer thread and a single consumer thread.

use std::cell::UnsafeCell;
use std::mem::MaybeUninit;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering, fence};

/// A value on its own cache lines, so that the two sides do not slow each other down.
#[repr(align(128))]
struct CacheLines<T>(T);

/// Invariant: the slots from `head` to `tail` hold values, the others do not. Both are counters that only increase; the slot is the
/// count modulo the capacity. Only the sender writes `tail`, only the receiver writes `head`.
struct Queue<T> {
    slots: Box<[UnsafeCell<MaybeUninit<T>>]>,
    head: CacheLines<AtomicUsize>,
    tail: CacheLines<AtomicUsize>,
    /// The sender has more than fits and wants to be notified of space.
    starved: AtomicBool,
}

// SAFETY: a value is written by the sender, published by the release store of `tail`, and read by the receiver alone after the
// acquire load that sees it. So values only move from one thread to the other, which requires `Send`.
unsafe impl<T: Send> Sync for Queue<T> {}
// SAFETY: as above.
unsafe impl<T: Send> Send for Queue<T> {}

impl<T> Queue<T> {
    fn slot(&self, count: usize) -> *mut MaybeUninit<T> {
        self.slots[count & (self.slots.len() - 1)].get()
    }
}

impl<T> Drop for Queue<T> {
    fn drop(&mut self) {
        let tail = *self.tail.0.get_mut();
        let mut head = *self.head.0.get_mut();
        while head != tail {
            // SAFETY: the type's invariant; both sides have been dropped.
            unsafe { (*self.slot(head)).assume_init_drop() };
            head = head.wrapping_add(1);
        }
    }
}

/// The only sender of a queue.
pub(super) struct Sender<T> {
    queue: Arc<Queue<T>>,
    tail: usize,
    head_seen: usize,
}

/// The only receiver of a queue.
pub(super) struct Receiver<T> {
    queue: Arc<Queue<T>>,
    head: usize,
    tail_seen: usize,
}

/// Creates a queue with space for `capacity` values, a power of two.
pub(super) fn queue<T: Send>(capacity: usize) -> (Sender<T>, Receiver<T>) {
    assert!(capacity.is_power_of_two());
    let slots = (0..capacity).map(|_| UnsafeCell::new(MaybeUninit::uninit())).collect();
    let queue = Arc::new(Queue {
        slots,
        head: CacheLines(AtomicUsize::new(0)),
        tail: CacheLines(AtomicUsize::new(0)),
        starved: AtomicBool::new(false),
    });
    let receiver = Receiver { queue: Arc::clone(&queue), head: 0, tail_seen: 0 };
    (Sender { queue, tail: 0, head_seen: 0 }, receiver)
}

impl<T: Send> Sender<T> {
    /// Adds a value, or returns it if the queue is full.
    pub(super) fn push(&mut self, value: T) -> Result<(), T> {
        let capacity = self.queue.slots.len();
        if self.tail.wrapping_sub(self.head_seen) == capacity {
            self.head_seen = self.queue.head.0.load(Ordering::Acquire);
            if self.tail.wrapping_sub(self.head_seen) == capacity {
                return Err(value);
            }
        }
        // SAFETY: the slot is outside `head..tail`, so the receiver does not access it, and this is the only sender.
        unsafe { (*self.queue.slot(self.tail)).write(value) };
        self.tail = self.tail.wrapping_add(1);
        self.queue.tail.0.store(self.tail, Ordering::Release);
        Ok(())
    }

    /// Asks the receiver to notify this side when it has made space. Try to push once more afterwards: it may have done so just
    /// before.
    pub(super) fn request_space(&self) {
        self.queue.starved.store(true, Ordering::Relaxed);
        fence(Ordering::SeqCst);
    }

    /// Returns whether the receiver has seen the last request, so that there is space.
    pub(super) fn has_space(&self) -> bool {
        !self.queue.starved.load(Ordering::Relaxed)
    }
}

impl<T: Send> Receiver<T> {
    /// Removes and returns the next value.
    pub(super) fn pop(&mut self) -> Option<T> {
        if self.is_empty() {
            return None;
        }
        // SAFETY: the slot is within `head..tail`, so it holds a value that the sender does not access. Advancing `head` releases
        // the slot.
        let value = unsafe { (*self.queue.slot(self.head)).assume_init_read() };
        self.head = self.head.wrapping_add(1);
        self.queue.head.0.store(self.head, Ordering::Release);
        Some(value)
    }

    pub(super) fn is_empty(&mut self) -> bool {
        if self.head == self.tail_seen {
            self.tail_seen = self.queue.tail.0.load(Ordering::Acquire);
        }
        self.head == self.tail_seen
    }

    /// Returns whether the sender has requested space, and clears the request. Must be called after space was made.
    pub(super) fn take_space_request(&self) -> bool {
        fence(Ordering::SeqCst);
        self.queue.starved.load(Ordering::Relaxed) && self.queue.starved.swap(false, Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_arrive_in_order_on_another_thread_and_none_is_lost() {
        const COUNT: u64 = 200_000;
        let (mut sender, mut receiver) = queue::<Box<u64>>(64);
        let thread = std::thread::spawn(move || {
            for n in 0..COUNT {
                let mut value = Box::new(n);
                while let Err(back) = sender.push(value) {
                    value = back;
                    std::thread::yield_now();
                }
            }
        });
        for n in 0..COUNT {
            let value = loop {
                match receiver.pop() {
                    Some(value) => break value,
                    None => std::thread::yield_now(),
                }
            };
            assert_eq!(*value, n);
        }
        thread.join().expect("the sender must not panic");
        assert!(receiver.is_empty());
    }

    #[test]
    fn a_full_queue_returns_the_value_and_notifies_when_there_is_space() {
        let (mut sender, mut receiver) = queue::<u32>(2);
        assert_eq!((sender.push(1), sender.push(2), sender.push(3)), (Ok(()), Ok(()), Err(3)));
        assert!(!receiver.take_space_request());
        sender.request_space();
        assert_eq!(receiver.pop(), Some(1));
        assert!(!sender.has_space());
        assert!(receiver.take_space_request());
        assert!(!receiver.take_space_request());
        assert!(sender.has_space());
        assert_eq!(sender.push(3), Ok(()));
        assert_eq!((receiver.pop(), receiver.pop(), receiver.pop()), (Some(2), Some(3), None));
    }

    #[test]
    fn values_left_in_a_queue_are_dropped_with_it() {
        let value = Arc::new(());
        let (mut sender, receiver) = queue::<Arc<()>>(4);
        for _ in 0..3 {
            sender.push(Arc::clone(&value)).expect("space");
        }
        drop(receiver);
        assert_eq!(Arc::strong_count(&value), 4);
        drop(sender);
        assert_eq!(Arc::strong_count(&value), 1);
    }
}
