//! A file that is written from its beginning to its end, in large pieces.
//!
//! What is to be synced at the end can be synced on the way as well, by a thread of its own: the device then works while the
//! rest is copied. Opening after a kill is the case for it: blocks that no sync had reached are written again, and opening
//! waits for them.
#![forbid(unsafe_code)]

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;

use super::error::LogError;
use super::vfs::VfsFile;

#[derive(Debug)]
pub(crate) struct Output<'a> {
    pub(crate) file: &'a dyn VfsFile,
    pub(crate) path: &'a Path,
    pub(crate) buffer: Vec<u8>,
    pub(crate) done: u64,
    ahead: Option<Ahead>,
}

impl<'a> Output<'a> {
    /// A file that begins with what the buffer holds.
    pub(crate) fn new(file: &'a dyn VfsFile, path: &'a Path, buffer: Vec<u8>) -> Self {
        Self {
            file,
            path,
            buffer,
            done: 0,
            ahead: None,
        }
    }

    /// From now on, another thread syncs what is written. The same file has to be given.
    pub(crate) fn sync_ahead(&mut self, file: &Arc<dyn VfsFile>) {
        self.ahead = Ahead::start(file);
    }

    pub(crate) fn flush(&mut self) -> Result<(), LogError> {
        let written = self.file.write_all_at(&self.buffer, self.done);
        written.map_err(|e| LogError::io("write", self.path, e))?;
        self.done += self.buffer.len() as u64;
        self.buffer.clear();
        if let Some(ahead) = &self.ahead {
            ahead.go_on();
        }
        Ok(())
    }

    pub(crate) fn flush_if_large(&mut self) -> Result<(), LogError> {
        if self.buffer.len() >= PIECE { self.flush() } else { Ok(()) }
    }

    /// Fills up with zeros.
    pub(crate) fn zeros(&mut self, until: u64) -> Result<(), LogError> {
        loop {
            let at = self.done + self.buffer.len() as u64;
            if at >= until {
                return Ok(());
            }
            let piece = (until - at).min(PIECE as u64) as usize;
            self.buffer.resize(self.buffer.len() + piece, 0);
            self.flush_if_large()?;
        }
    }

    /// Writes what is left, and waits until the device has all of it.
    pub(crate) fn sync(&mut self) -> Result<(), LogError> {
        self.flush()?;
        // A sync that failed is told once, to whoever asks next. So what the thread was told counts.
        let ahead = self.ahead.take().map_or(Ok(()), Ahead::finish);
        let synced = ahead.and_then(|()| self.file.sync_data());
        synced.map_err(|e| LogError::io("sync", self.path, e))
    }
}

/// A thread that syncs a file again and again, as long as more is written to it.
#[derive(Debug)]
struct Ahead {
    more: Option<Sender<()>>,
    thread: Option<thread::JoinHandle<io::Result<()>>>,
}

impl Ahead {
    /// `None` if there is no thread to be had: then all of it is synced at the end.
    fn start(file: &Arc<dyn VfsFile>) -> Option<Self> {
        let (more, pieces) = channel();
        let file = Arc::clone(file);
        let named = thread::Builder::new().name("ringmq-open".to_owned());
        let thread = named.spawn(move || sync_pieces(&*file, &pieces)).ok()?;
        Some(Self {
            more: Some(more),
            thread: Some(thread),
        })
    }

    fn go_on(&self) {
        if let Some(more) = &self.more {
            // Nobody listens any more after a sync that failed. `finish` says so.
            let _ = more.send(());
        }
    }

    /// Waits for the thread: says whether all of its syncs went well.
    fn finish(mut self) -> io::Result<()> {
        self.join()
    }

    fn join(&mut self) -> io::Result<()> {
        drop(self.more.take());
        match self.thread.take().map(thread::JoinHandle::join) {
            Some(Ok(synced)) => synced,
            Some(Err(_)) => Err(io::Error::other("the thread that syncs panicked")),
            None => Ok(()),
        }
    }
}

impl Drop for Ahead {
    /// Nothing of it goes on when the writing was given up: the file may be removed next.
    fn drop(&mut self) {
        drop(self.join());
    }
}

fn sync_pieces(file: &dyn VfsFile, pieces: &Receiver<()>) -> io::Result<()> {
    while pieces.recv().is_ok() {
        while pieces.try_recv().is_ok() {}
        file.sync_data()?;
    }
    Ok(())
}

/// How much is written at once.
pub(crate) const PIECE: usize = 1 << 20;

#[cfg(test)]
mod tests {
    use crate::sync::plain::{Condvar, Mutex};

    use super::super::vfs::FileId;
    use super::*;

    /// A file whose syncs are counted, and of which one may fail: like the system, it tells so once.
    #[derive(Debug, Default)]
    struct Told {
        state: Mutex<State>,
        synced: Condvar,
    }

    #[derive(Debug, Default)]
    struct State {
        len: u64,
        syncs: u64,
        fails: Option<u64>,
    }

    impl Told {
        fn failing_at(sync: u64) -> Self {
            let told = Self::default();
            told.state.lock().fails = Some(sync);
            told
        }

        fn wait_for_a_sync(&self) {
            let mut state = self.state.lock();
            while state.syncs == 0 {
                self.synced.wait(&mut state);
            }
        }
    }

    impl VfsFile for Told {
        fn read_at(&self, _: &mut [u8], _: u64) -> io::Result<usize> {
            Err(io::ErrorKind::Unsupported.into())
        }
        fn write_at(&self, bytes: &[u8], at: u64) -> io::Result<usize> {
            let mut state = self.state.lock();
            state.len = state.len.max(at + bytes.len() as u64);
            Ok(bytes.len())
        }
        fn len(&self) -> io::Result<u64> {
            Ok(self.state.lock().len)
        }
        fn set_len(&self, _: u64) -> io::Result<()> {
            Err(io::ErrorKind::Unsupported.into())
        }
        fn sync_data(&self) -> io::Result<()> {
            let mut state = self.state.lock();
            state.syncs += 1;
            self.synced.notify_all();
            if state.fails == Some(state.syncs) {
                Err(io::ErrorKind::Other.into())
            } else {
                Ok(())
            }
        }
        fn sync_all(&self) -> io::Result<()> {
            Err(io::ErrorKind::Unsupported.into())
        }
        fn identity(&self) -> io::Result<Option<FileId>> {
            Ok(None)
        }
    }

    /// Writes two pieces and waits for a sync between them, then syncs what is left.
    fn write_ahead(told: Told) -> (Result<(), LogError>, State) {
        let told = Arc::new(told);
        let file: Arc<dyn VfsFile> = Arc::clone(&told) as _;
        let mut out = Output::new(&*file, Path::new("segment"), vec![1; PIECE]);
        out.sync_ahead(&file);
        let written = out.flush_if_large();
        told.wait_for_a_sync();
        let synced = written.and_then(|()| out.zeros(2 * PIECE as u64 + 5)).and_then(|()| out.sync());
        (synced, std::mem::take(&mut *told.state.lock()))
    }

    #[test]
    fn a_sync_goes_on_while_a_file_is_still_being_written_and_the_last_one_covers_all() {
        let (synced, state) = write_ahead(Told::default());
        synced.expect("nothing fails");
        assert_eq!(state.len, 2 * PIECE as u64 + 5);
        assert!(state.syncs >= 2, "{state:?}");
    }

    #[test]
    fn a_sync_that_failed_on_the_way_is_not_forgotten_because_the_last_one_went_well() {
        let (synced, _) = write_ahead(Told::failing_at(1));
        assert!(matches!(synced, Err(LogError::Io { .. })), "{synced:?}");
    }

    #[test]
    fn nothing_syncs_a_file_any_more_whose_writing_was_given_up() {
        let told = Arc::new(Told::default());
        let file: Arc<dyn VfsFile> = Arc::clone(&told) as _;
        let mut out = Output::new(&*file, Path::new("segment"), vec![1; PIECE]);
        out.sync_ahead(&file);
        out.flush().expect("nothing fails");
        drop(out);
        drop(file);
        assert!(Arc::try_unwrap(told).is_ok(), "the thread has ended");
    }
}
