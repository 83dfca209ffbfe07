//! Safe points: below them, old versions may be collected.
//!
//! The *txn safe point* goes first: no transaction reads below it. The *gc safe point* follows, never above it: versions below may be
//! gone. A *pin* (a backup, a change feed) keeps the txn safe point at or below its timestamp until it is dropped or expires.
//! The wire's newer interface calls pins barriers. The older one knows safe points of services: `gc_worker` speaks for the txn safe
//! point, every other service has a pin.
//! Who moves the txn safe point: the collector in the placement driver, until a client does so for the first time, as databases on top of
//! the store do. From then on only clients: they know how long their old versions are read, and may have stopped on purpose.
//! Invariants: `gc_safe_point <= txn_safe_point`; neither goes back; an unexpired pin is never overtaken.

use std::collections::BTreeMap;

use base::Ts;
use proto::ferrite_pd::{Pin, PutServiceSafePoint};

use crate::Error;

/// The service whose safe point is the txn safe point itself.
pub const GC_WORKER: &str = "gc_worker";
/// Stands for "never expires" in times to live, in seconds.
pub const TTL_FOREVER: i64 = i64::MAX;

/// The lowest of all services' safe points.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceSafePoint {
    pub service: String,
    pub ts: Ts,
    /// Seconds until it expires, or [`TTL_FOREVER`].
    pub ttl_seconds: i64,
}

/// How far a safe point moved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Advanced {
    pub old: Ts,
    pub new: Ts,
    /// What kept it from its target; empty when nothing did.
    pub blocker: String,
}

/// See the module.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Gc {
    pub gc_safe_point: Ts,
    pub txn_safe_point: Ts,
    /// A client moves the txn safe point.
    pub client_collects: bool,
    pins: BTreeMap<String, Pin>,
}

impl Gc {
    pub fn new(gc_safe_point: Ts, txn_safe_point: Ts, client_collects: bool, pins: Vec<Pin>) -> Gc {
        let pins = pins.into_iter().map(|pin| (pin.name.clone(), pin)).collect();
        Gc {
            gc_safe_point,
            txn_safe_point,
            client_collects,
            pins,
        }
    }

    /// All pins in order of name, the expired ones that no command has swept yet among them.
    pub fn pins(&self) -> impl Iterator<Item = &Pin> {
        self.pins.values()
    }

    /// Pins that have not expired.
    pub fn living_pins(&self, now_seconds: u64) -> impl Iterator<Item = &Pin> {
        self.pins.values().filter(move |pin| !is_expired(pin, now_seconds))
    }

    /// Moves both safe points towards `target`, as far as pins allow; returns the gc safe point.
    pub fn update(&mut self, target: Ts, now_seconds: u64) -> Ts {
        self.follow_txn(target, now_seconds);
        self.gc_safe_point = self.gc_safe_point.max(target.min(self.txn_safe_point));
        self.gc_safe_point
    }

    /// Moves the txn safe point to `target`, or as near as the pins allow. Errors when `target` lies behind.
    pub fn advance_txn(&mut self, target: Ts, by_client: bool, now_seconds: u64) -> Result<Advanced, Error> {
        let old = self.txn_safe_point;
        check_not_behind(target, old)?;
        if self.client_collects && !by_client {
            return Ok(Advanced {
                old,
                new: old,
                blocker: "a client collects".to_owned(),
            });
        }
        self.client_collects |= by_client;
        self.follow_txn(target, now_seconds);
        let lowest = self.pins.values().filter(|pin| Ts(pin.ts) < target).min_by_key(|pin| pin.ts);
        let blocker = lowest
            .map(|pin| format!("barrier `{}` at {}", pin.name, pin.ts))
            .unwrap_or_default();
        Ok(Advanced {
            old,
            new: self.txn_safe_point,
            blocker,
        })
    }

    /// Moves the gc safe point to `target`. Errors when that lies behind, or beyond the txn safe point.
    pub fn advance_gc(&mut self, target: Ts) -> Result<Advanced, Error> {
        let old = self.gc_safe_point;
        check_not_behind(target, old)?;
        if target > self.txn_safe_point {
            return Err(Error::SafePointAhead {
                target,
                txn_safe_point: self.txn_safe_point,
            });
        }
        self.gc_safe_point = target;
        Ok(Advanced {
            old,
            new: target,
            blocker: String::new(),
        })
    }

    /// Sets a pin. Errors when the txn safe point is already beyond it, or the name is empty or reserved.
    pub fn put_pin(&mut self, pin: &Pin, now_seconds: u64) -> Result<(), Error> {
        if pin.name.is_empty() || pin.name == GC_WORKER {
            return Err(Error::Invalid {
                reason: format!("a barrier cannot be named `{}`", pin.name),
            });
        }
        self.sweep(now_seconds);
        check_not_behind(Ts(pin.ts), self.txn_safe_point)?;
        self.pins.insert(pin.name.clone(), pin.clone());
        Ok(())
    }

    /// Drops a pin and returns it, if there was one that had not expired.
    pub fn drop_pin(&mut self, name: &str, now_seconds: u64) -> Option<Pin> {
        self.sweep(now_seconds);
        self.pins.remove(name)
    }

    /// Sets or drops a service's safe point, without effect when that comes too late; returns the lowest of all.
    pub fn put_service(&mut self, command: &PutServiceSafePoint) -> Result<ServiceSafePoint, Error> {
        let pin = command.pin.clone().unwrap_or_default();
        if pin.name == GC_WORKER {
            if command.drop || pin.expires_at_seconds != 0 {
                return Err(Error::Invalid {
                    reason: format!("the safe point of `{GC_WORKER}` cannot expire"),
                });
            }
            self.client_collects = true;
            self.follow_txn(Ts(pin.ts), command.now_seconds);
        } else if pin.name.is_empty() {
            return Err(Error::Invalid {
                reason: "a safe point needs the name of its service".to_owned(),
            });
        } else if command.drop {
            self.pins.remove(&pin.name);
        } else if Ts(pin.ts) >= self.txn_safe_point {
            self.pins.insert(pin.name.clone(), pin);
        }
        self.sweep(command.now_seconds);
        Ok(self.lowest(command.now_seconds))
    }

    /// Moves the txn safe point towards `target`, as far as pins allow.
    fn follow_txn(&mut self, target: Ts, now_seconds: u64) {
        self.sweep(now_seconds);
        let pinned = self.pins.values().map(|pin| Ts(pin.ts)).min().unwrap_or(target);
        self.txn_safe_point = self.txn_safe_point.max(target.min(pinned));
    }

    fn lowest(&self, now_seconds: u64) -> ServiceSafePoint {
        let of_pin = |pin: &Pin| ServiceSafePoint {
            service: pin.name.clone(),
            ts: Ts(pin.ts),
            ttl_seconds: ttl_seconds(pin, now_seconds),
        };
        let gc_worker = ServiceSafePoint {
            service: GC_WORKER.to_owned(),
            ts: self.txn_safe_point,
            ttl_seconds: TTL_FOREVER,
        };
        self.pins
            .values()
            .map(of_pin)
            .chain([gc_worker])
            .min_by_key(|lowest| lowest.ts)
            .expect("the chain is not empty")
    }

    fn sweep(&mut self, now_seconds: u64) {
        self.pins
            .retain(|_, pin| pin.expires_at_seconds == 0 || pin.expires_at_seconds > now_seconds);
    }
}

fn is_expired(pin: &Pin, now_seconds: u64) -> bool {
    pin.expires_at_seconds != 0 && pin.expires_at_seconds <= now_seconds
}

fn check_not_behind(target: Ts, current: Ts) -> Result<(), Error> {
    if target < current {
        Err(Error::SafePointBehind { target, current })
    } else {
        Ok(())
    }
}

/// Seconds until `pin` expires, or [`TTL_FOREVER`].
pub fn ttl_seconds(pin: &Pin, now_seconds: u64) -> i64 {
    match pin.expires_at_seconds {
        0 => TTL_FOREVER,
        at => i64::try_from(at.saturating_sub(now_seconds)).unwrap_or(TTL_FOREVER),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(name: &str, ts: u64, expires_at_seconds: u64) -> PutServiceSafePoint {
        PutServiceSafePoint {
            pin: Some(Pin {
                name: name.to_owned(),
                ts,
                expires_at_seconds,
            }),
            drop: false,
            now_seconds: 100,
        }
    }

    fn lowest(service: &str, ts: u64, ttl_seconds: i64) -> Result<ServiceSafePoint, Error> {
        Ok(ServiceSafePoint {
            service: service.to_owned(),
            ts: Ts(ts),
            ttl_seconds,
        })
    }

    #[test]
    fn the_gc_safe_point_never_goes_back() {
        let mut gc = Gc::default();
        assert_eq!(gc.update(Ts(50), 100), Ts(50));
        assert_eq!(gc.update(Ts(40), 100), Ts(50));
        assert_eq!((gc.gc_safe_point, gc.txn_safe_point), (Ts(50), Ts(50)));
    }

    #[test]
    fn the_lowest_service_holds_the_others() {
        let mut gc = Gc::default();
        assert_eq!(gc.put_service(&put(GC_WORKER, 20, 0)), lowest(GC_WORKER, 20, TTL_FOREVER));
        assert_eq!(gc.put_service(&put("backup", 30, 160)), lowest(GC_WORKER, 20, TTL_FOREVER));
        assert_eq!(
            gc.put_service(&put(GC_WORKER, 80, 0)),
            lowest("backup", 30, 60),
            "held back by the backup"
        );
        assert_eq!(gc.update(Ts(80), 100), Ts(30));
        assert_eq!(
            gc.put_service(&put("feed", 10, 160)),
            lowest("backup", 30, 60),
            "too late: 10 may be gone"
        );
        let drop = PutServiceSafePoint {
            drop: true,
            ..put("backup", 0, 0)
        };
        assert_eq!(gc.put_service(&drop), lowest(GC_WORKER, 30, TTL_FOREVER));
        assert_eq!(gc.update(Ts(80), 100), Ts(80));
    }

    #[test]
    fn a_pin_holds_until_it_expires() {
        let mut gc = Gc::default();
        gc.put_service(&put("backup", 30, 160)).unwrap();
        assert_eq!(gc.update(Ts(80), 159), Ts(30));
        assert_eq!(gc.update(Ts(80), 160), Ts(80));
        assert_eq!(gc.pins().count(), 0);
    }

    #[test]
    fn gc_worker_cannot_expire_and_services_have_names() {
        let mut gc = Gc::default();
        assert!(matches!(gc.put_service(&put(GC_WORKER, 20, 160)), Err(Error::Invalid { .. })));
        assert!(matches!(gc.put_service(&put("", 20, 160)), Err(Error::Invalid { .. })));
        assert_eq!(gc, Gc::default());
    }

    #[test]
    fn the_own_collector_stops_once_a_client_collects() {
        let by_service = |gc: &mut Gc| drop(gc.put_service(&put(GC_WORKER, 30, 0)).unwrap());
        let by_advance = |gc: &mut Gc| drop(gc.advance_txn(Ts(30), true, 100).unwrap());
        for client in [by_service, by_advance] {
            let mut gc = Gc::default();
            assert_eq!(gc.advance_txn(Ts(20), false, 100).map(|moved| moved.new), Ok(Ts(20)));
            client(&mut gc);
            let stays = gc.advance_txn(Ts(90), false, 100).unwrap();
            assert_eq!((stays.new, gc.txn_safe_point), (Ts(30), Ts(30)), "{stays:?}");
            assert_eq!(gc.advance_txn(Ts(50), true, 100).map(|moved| moved.new), Ok(Ts(50)));
        }
    }

    #[test]
    fn barriers_hold_the_txn_safe_point_and_that_the_gc_safe_point() {
        let mut gc = Gc::default();
        let pin = |ts| Pin {
            name: "br".to_owned(),
            ts,
            expires_at_seconds: 0,
        };
        gc.put_pin(&pin(40), 100).unwrap();
        let held = Advanced {
            old: Ts(0),
            new: Ts(40),
            blocker: "barrier `br` at 40".to_owned(),
        };
        assert_eq!(gc.advance_txn(Ts(90), true, 100), Ok(held));
        assert_eq!(
            gc.advance_gc(Ts(41)),
            Err(Error::SafePointAhead {
                target: Ts(41),
                txn_safe_point: Ts(40)
            })
        );
        assert_eq!(gc.advance_gc(Ts(30)).map(|moved| moved.new), Ok(Ts(30)));
        assert_eq!(
            gc.put_pin(&pin(39), 100),
            Err(Error::SafePointBehind {
                target: Ts(39),
                current: Ts(40)
            })
        );
        assert_eq!(
            gc.advance_txn(Ts(39), true, 100),
            Err(Error::SafePointBehind {
                target: Ts(39),
                current: Ts(40)
            })
        );
        assert_eq!(gc.drop_pin("br", 100), Some(pin(40)));
        assert_eq!(gc.advance_txn(Ts(90), true, 100).map(|moved| moved.new), Ok(Ts(90)));
    }
}
