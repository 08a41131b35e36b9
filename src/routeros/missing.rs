//! Owns what is made of menus that a router could not export: whether something is missing there, and
//! what is remembered of it until it is exported again.

use std::collections::HashMap;

use super::shape::{is_at_or_below, plain_menu};
use super::suspicion::{Remembered, places};
use crate::domain::snapshot::{MenuShape, Shape};

/// At most so many menus are remembered: as many as an export has at most.
const MAX_MENUS: usize = 4096;

/// The menus that are missing in an export of the form `shape`: those that the router `failed` to
/// export, and of the `unavailable` ones, which seem not to be there on this machine, those in which
/// the `old` export had something that is not there now. A user manager that stopped says the same of
/// its menus as a router that has none.
///
/// Where a parent fails each time, and what is printed below it is what it was, nothing is missing.
pub fn missing_menus(
    old: Option<Remembered<'_>>,
    shape: &Shape,
    failed: Vec<String>,
    unavailable: &[String],
) -> Vec<String> {
    let mut missing = failed;
    let Some(old) = old.filter(|_| !unavailable.is_empty()) else {
        return missing;
    };
    let (had, has) = (items(old.shape), items(shape));
    for menu in unavailable {
        let path = plain_menu(menu);
        let lacks = had.iter().any(|(at, items)| {
            is_at_or_below(at, &path) && has.get(at).is_none_or(|now| now < items)
        });
        if lacks && !missing.contains(menu) {
            missing.push(menu.clone());
        }
    }
    missing
}

/// How many items each menu has, over all places where it is printed.
fn items(shape: &Shape) -> HashMap<String, u32> {
    let mut items: HashMap<String, u32> = HashMap::new();
    for menu in &shape.menus {
        let sum = items
            .entry(plain_menu(&menu.menu).into_owned())
            .or_default();
        *sum = sum.saturating_add(menu.items);
    }
    items
}

/// The form to remember of an export of the form `new` that is taken without the menus `missing`: what
/// the `old` one remembered of these stays, where it stood. So it is known that they had items, and
/// that they belong to the end, for as long as they cannot be exported.
pub fn remember(old: Option<&Shape>, new: Shape, missing: &[String]) -> Shape {
    let Some(old) = old.filter(|_| !missing.is_empty()) else {
        return new;
    };
    let missing: Vec<_> = missing.iter().map(|menu| plain_menu(menu)).collect();
    let is_missing = |menu: &MenuShape| {
        let menu = plain_menu(&menu.menu);
        missing.iter().any(|missing| is_at_or_below(&menu, missing))
    };
    let mut menus: Vec<&MenuShape> = new.menus.iter().collect();
    let found: HashMap<_, _> = places(&menus).zip(0..).collect();
    let known: Vec<&MenuShape> = old.menus.iter().collect();
    // Each behind what stood before it: where the new menus have the odd places, at an even one.
    let mut kept: Vec<(usize, &MenuShape)> = Vec::new();
    let mut at = 0;
    for (menu, place) in known.iter().copied().zip(places(&known)) {
        match found.get(&place) {
            Some(found) => {
                if is_missing(menu) && menus[*found].items < menu.items {
                    menus[*found] = menu;
                }
                at = 2 * found + 2;
            }
            None if is_missing(menu) && menus.len() + kept.len() <= MAX_MENUS => {
                kept.push((at, menu));
            }
            None => {}
        }
    }
    kept.extend((1..).step_by(2).zip(menus));
    // It is stable: what is kept at one place stays in its order.
    kept.sort_by_key(|(at, _)| *at);
    let last = kept
        .iter()
        .rev()
        .map(|(_, menu)| *menu)
        .find(|menu| menu.items > 0);
    let is_of = |shape: &Shape| match (last, shape.last_menu()) {
        (Some(last), Some(own)) => std::ptr::eq(last, own),
        _ => false,
    };
    let end = match (is_of(&new), is_of(old)) {
        (true, _) => new.end,
        (false, true) => old.end,
        (false, false) => None,
    };
    Shape {
        end,
        menus: kept.into_iter().map(|(_, menu)| menu.clone()).collect(),
        secrets: new.secrets,
    }
}

#[cfg(test)]
#[path = "missing_tests.rs"]
mod tests;
