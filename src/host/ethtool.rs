//! What a network card's driver tells and takes by ioctl only: ring sizes, channels, coalescing, offloads.
//!
//! sysfs shows none of them. Asking needs no rights; setting needs CAP_NET_ADMIN. The netlink family that
//! replaced these ioctls brings nothing this program needs, and the ioctls are one call each.
//!
//! Answers become text before they become numbers, one `key=value` a line, so that a recording
//! (`spinetail/ethtool/NAME`) holds what was read and both go through the same reader. A key whose command
//! the driver refuses is left out:
//!
//! ```text
//! rx=1024 rx_max=8192 tx=1024 tx_max=8192                 ring entries a queue
//! combined=8 combined_max=63 rx_queues=0 rx_queues_max=0 tx_queues=0 tx_queues_max=0
//! rx_usecs=8 tx_usecs=16 adaptive_rx=1 adaptive_tx=1      interrupt coalescing
//! gro=1 gso=1 tso=1 lro=0 rx_csum=1 tx_csum=1 ntuple=0    offloads
//! ```
//!
//! 1. Linux, include/uapi/linux/ethtool.h: the commands and their structures, all of 32-bit words.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixDatagram;

use serde::Serialize;

/// Entries in each queue's rings.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Rings {
    /// Receive entries.
    pub rx: u32,
    /// The most the card takes.
    pub rx_max: u32,
    /// Send entries.
    pub tx: u32,
    /// The most the card takes.
    pub tx_max: u32,
}

/// Queues in use and the most there may be. A combined channel has one queue each way and one interrupt.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Channels {
    /// Combined channels.
    pub combined: u32,
    /// The most the card takes.
    pub combined_max: u32,
    /// Channels that only receive.
    pub rx: u32,
    /// The most the card takes.
    pub rx_max: u32,
    /// Channels that only send.
    pub tx: u32,
    /// The most the card takes.
    pub tx_max: u32,
}

/// How long the card holds an interrupt back in the hope of more packets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Coalesce {
    /// Microseconds after a packet arrived.
    pub rx_usecs: u32,
    /// Microseconds after a packet was sent.
    pub tx_usecs: u32,
    /// The driver changes the former by itself.
    pub adaptive_rx: bool,
    /// The driver changes the latter by itself.
    pub adaptive_tx: bool,
}

/// Work that card and stack do for many packets at once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Offloads {
    /// Received packets are joined by the kernel.
    pub gro: bool,
    /// Sent packets are cut late, by the kernel.
    pub gso: bool,
    /// Sent packets are cut by the card.
    pub tso: bool,
    /// Received packets are joined by the card.
    pub lro: bool,
    /// The card checks the sums of what it receives.
    pub rx_csum: bool,
    /// The card writes the sums of what it sends.
    pub tx_csum: bool,
    /// Flows can be steered to queues by rules.
    pub ntuple: bool,
}

/// All of it; `None` where the driver does not tell.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Answers {
    /// Ring sizes.
    pub rings: Option<Rings>,
    /// Channels.
    pub channels: Option<Channels>,
    /// Interrupt coalescing.
    pub coalesce: Option<Coalesce>,
    /// Offloads.
    pub offloads: Option<Offloads>,
}

/// Sets the entries in each queue's rings of interface `name`. The link of many cards goes down for a
/// moment. Needs CAP_NET_ADMIN.
pub fn set_rings(name: &str, rx: u32, tx: u32) -> io::Result<()> {
    let mut words = call(name, Command::GetRings, &EMPTY)?;
    refuse_above("receive ring entries", rx, words[RING_RX_MAX])?;
    refuse_above("send ring entries", tx, words[RING_TX_MAX])?;
    (words[RING_RX], words[RING_TX]) = (rx, tx);
    call(name, Command::SetRings, &words).map(|_| ())
}

/// Sets how many combined channels interface `name` uses. The link of many cards goes down for a moment.
/// Needs CAP_NET_ADMIN.
pub fn set_channels(name: &str, combined: u32) -> io::Result<()> {
    let mut words = call(name, Command::GetChannels, &EMPTY)?;
    refuse_above("combined channels", combined, words[CHANNEL_COMBINED_MAX])?;
    words[CHANNEL_COMBINED] = combined;
    call(name, Command::SetChannels, &words).map(|_| ())
}

/// Asks the kernel about interface `name`, and writes what it answers as `key=value` lines. `None` when it
/// answers nothing.
pub(crate) fn ask(name: &str) -> Option<String> {
    let mut text = String::new();
    let mut put = |key: &str, value: u32| {
        let _ = writeln!(text, "{key}={value}");
    };
    if let Ok(words) = call(name, Command::GetRings, &EMPTY) {
        put("rx", words[RING_RX]);
        put("rx_max", words[RING_RX_MAX]);
        put("tx", words[RING_TX]);
        put("tx_max", words[RING_TX_MAX]);
    }
    if let Ok(words) = call(name, Command::GetChannels, &EMPTY) {
        put("combined", words[CHANNEL_COMBINED]);
        put("combined_max", words[CHANNEL_COMBINED_MAX]);
        put("rx_queues", words[CHANNEL_RX]);
        put("rx_queues_max", words[CHANNEL_RX_MAX]);
        put("tx_queues", words[CHANNEL_TX]);
        put("tx_queues_max", words[CHANNEL_TX_MAX]);
    }
    if let Ok(words) = call(name, Command::GetCoalesce, &EMPTY) {
        put("rx_usecs", words[COALESCE_RX_USECS]);
        put("tx_usecs", words[COALESCE_TX_USECS]);
        put("adaptive_rx", words[COALESCE_ADAPTIVE_RX]);
        put("adaptive_tx", words[COALESCE_ADAPTIVE_TX]);
    }
    for (key, command) in [
        ("gro", Command::GetGro),
        ("gso", Command::GetGso),
        ("tso", Command::GetTso),
        ("rx_csum", Command::GetReceiveChecksum),
        ("tx_csum", Command::GetSendChecksum),
    ] {
        if let Ok(words) = call(name, command, &EMPTY) {
            put(key, words[VALUE]);
        }
    }
    if let Ok(words) = call(name, Command::GetFlags, &EMPTY) {
        put("lro", words[VALUE] >> FLAG_LRO_BIT & 1);
        put("ntuple", words[VALUE] >> FLAG_NTUPLE_BIT & 1);
    }
    (!text.is_empty()).then_some(text)
}

/// Reads `key=value` lines. The error is the line that is none. Keys that this version does not know were
/// written by a newer one.
pub(crate) fn parse(text: &str) -> Result<Answers, String> {
    let mut values = BTreeMap::new();
    for line in text.lines().map(str::trim).filter(|line| !line.is_empty()) {
        let (key, value) = line.split_once('=').ok_or_else(|| line.to_owned())?;
        values.insert(key.trim(), value.trim().parse::<u32>().map_err(|_| line.to_owned())?);
    }
    let number = |key: &str| values.get(key).copied().unwrap_or(0);
    let flag = |key: &str| number(key) != 0;
    let any = |keys: &[&str]| keys.iter().any(|key| values.contains_key(key));
    Ok(Answers {
        rings: any(&["rx", "tx"]).then(|| Rings {
            rx: number("rx"),
            rx_max: number("rx_max"),
            tx: number("tx"),
            tx_max: number("tx_max"),
        }),
        channels: any(&["combined", "rx_queues", "tx_queues"]).then(|| Channels {
            combined: number("combined"),
            combined_max: number("combined_max"),
            rx: number("rx_queues"),
            rx_max: number("rx_queues_max"),
            tx: number("tx_queues"),
            tx_max: number("tx_queues_max"),
        }),
        coalesce: any(&["rx_usecs", "tx_usecs", "adaptive_rx"]).then(|| Coalesce {
            rx_usecs: number("rx_usecs"),
            tx_usecs: number("tx_usecs"),
            adaptive_rx: flag("adaptive_rx"),
            adaptive_tx: flag("adaptive_tx"),
        }),
        offloads: any(&["gro", "gso", "tso", "rx_csum"]).then(|| Offloads {
            gro: flag("gro"),
            gso: flag("gso"),
            tso: flag("tso"),
            lro: flag("lro"),
            rx_csum: flag("rx_csum"),
            tx_csum: flag("tx_csum"),
            ntuple: flag("ntuple"),
        }),
    })
}

/// The commands used here, by their numbers in the header named above.
#[derive(Clone, Copy, Debug)]
#[repr(u32)]
enum Command {
    GetCoalesce = 0x0e,
    GetRings = 0x10,
    SetRings = 0x11,
    GetReceiveChecksum = 0x14,
    GetSendChecksum = 0x16,
    GetTso = 0x1e,
    GetGso = 0x23,
    GetFlags = 0x25,
    GetGro = 0x2b,
    GetChannels = 0x3c,
    SetChannels = 0x3d,
}

/// Words of a command's structure, the command first: the largest used here, `ethtool_coalesce`, has 23.
type Words = [u32; 32];

const EMPTY: Words = [0; 32];

// Where the words stand in that header's structures: `ethtool_ringparam`, `ethtool_channels`,
// `ethtool_coalesce`, `ethtool_value`.
const RING_RX_MAX: usize = 1;
const RING_TX_MAX: usize = 4;
const RING_RX: usize = 5;
const RING_TX: usize = 8;
const CHANNEL_RX_MAX: usize = 1;
const CHANNEL_TX_MAX: usize = 2;
const CHANNEL_COMBINED_MAX: usize = 4;
const CHANNEL_RX: usize = 5;
const CHANNEL_TX: usize = 6;
const CHANNEL_COMBINED: usize = 8;
const COALESCE_RX_USECS: usize = 1;
const COALESCE_TX_USECS: usize = 5;
const COALESCE_ADAPTIVE_RX: usize = 10;
const COALESCE_ADAPTIVE_TX: usize = 11;
const VALUE: usize = 1;
const FLAG_LRO_BIT: u32 = 15;
const FLAG_NTUPLE_BIT: u32 = 27;

/// Does one command: `words` are what it is given behind its number, what comes back is what it left there.
#[expect(unsafe_code, reason = "the ioctl has no name in std")]
fn call(name: &str, command: Command, words: &Words) -> io::Result<Words> {
    let invalid = |what: &str| io::Error::new(io::ErrorKind::InvalidInput, what);
    let mut words = *words;
    words[0] = command as u32;
    let mut ifr_name = [0; libc::IFNAMSIZ];
    if name.is_empty() || name.len() >= ifr_name.len() {
        return Err(invalid("no interface has such a name"));
    }
    for (to, from) in ifr_name.iter_mut().zip(name.bytes()) {
        *to = from as libc::c_char;
    }
    // Any socket reaches the interfaces of its network namespace; this kind needs no protocol to be there.
    let socket = UnixDatagram::unbound()?;
    let ifr_ifru = libc::__c_anonymous_ifr_ifru { ifru_data: words.as_mut_ptr().cast() };
    let mut request = libc::ifreq { ifr_name, ifr_ifru };
    // SAFETY: 1. The descriptor is open until the call returns, as `socket` lives longer. 2. `request` is a live
    // ifreq whose name ends with a zero, as it is shorter than its field. 3. The kernel reads and writes the
    // command's structure behind `ifru_data`: none of `Command` has more than 23 words and `words` has 32.
    let result = unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCETHTOOL as _, &raw mut request) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(words) }
}

fn refuse_above(what: &str, wanted: u32, most: u32) -> io::Result<()> {
    if wanted == 0 || wanted > most {
        let complaint = format!("{wanted} {what} were asked for and the card takes 1 to {most}: choose among these");
        return Err(io::Error::new(io::ErrorKind::InvalidInput, complaint));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_read_and_what_was_not_told_is_none() {
        let answers = parse("rx=256\nrx_max=8192\ntx=512\ntx_max=1024\ngro=1\nnewer=7\n").unwrap();
        assert_eq!(answers.rings, Some(Rings { rx: 256, rx_max: 8192, tx: 512, tx_max: 1024 }));
        assert_eq!(answers.channels, None);
        assert_eq!(answers.coalesce, None);
        assert_eq!(answers.offloads, Some(Offloads { gro: true, ..Offloads::default() }));
        assert_eq!(parse(""), Ok(Answers::default()));
    }

    #[test]
    fn senseless_line_is_named() {
        assert_eq!(parse("rx=256\ntx=many\n"), Err("tx=many".to_owned()));
        assert_eq!(parse("rx 256"), Err("rx 256".to_owned()));
    }

    #[test]
    fn loopback_answers_about_its_offloads() {
        // A sandbox may hide the interface or the ioctl; what it answers must be readable all the same.
        if let Some(text) = ask("lo") {
            assert!(parse(&text).unwrap().offloads.is_some(), "{text}");
        }
    }

    #[test]
    fn interface_that_cannot_be_is_refused_before_the_kernel_is_asked() {
        for name in ["", "a-name-of-sixteen"] {
            let error = set_rings(name, 1, 1).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::InvalidInput, "{name}");
        }
        assert_eq!(ask("no-such-card"), None);
    }

    #[test]
    fn more_than_the_card_takes_is_refused_with_its_bound() {
        assert!(refuse_above("entries", 8192, 8192).is_ok());
        assert!(refuse_above("entries", 8193, 8192).unwrap_err().to_string().contains("1 to 8192"));
        assert!(refuse_above("entries", 0, 8192).is_err());
    }
}
