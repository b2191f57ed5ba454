//! Pages of a tenant's file: the tail vouches for every bit, the tenant, the place and the stamp.

use storage::TenantId;
use storage::page::{PAGE_BYTES, set_tail, tail_check, verify_tail};

use super::program::Program;
use super::{Random, Seen, Target};

/// Most edits of one page.
const EDITS_MAX: usize = 16;

/// See the head of the file.
pub struct Pages;

impl Target for Pages {
    fn invent(&mut self, random: &mut Random) -> Vec<u8> {
        let count = 20 + 4 * random.index(EDITS_MAX);
        random.bytes(count)
    }

    fn run(&mut self, input: &[u8], seen: &mut Seen) -> Result<(), String> {
        let mut program = Program::of(input);
        let (tenant, number) = (TenantId(program.long()), program.short());
        let (number, stamp) = (u32::from(number) + 1, program.long());
        let mut page = vec![0; PAGE_BYTES];
        let filler = Random::new(program.short().into()).bytes(PAGE_BYTES);
        page[..filler.len()].copy_from_slice(&filler);
        set_tail(tenant, number, stamp, &mut page);
        if verify_tail(tenant, number, &page) != Some(stamp) {
            return Err("the page is refused as it was written".to_owned());
        }
        let whole = page.clone();
        let mut edits = 0;
        while !program.is_over() && edits < EDITS_MAX {
            edits += 1;
            edit(&mut program, &mut page);
        }
        seen.count("edits", edits);
        let differs = page != whole;
        match verify_tail(tenant, number, &page) {
            Some(_) if differs => return Err("an edited page is accepted".to_owned()),
            None if !differs => return Err("the page is refused as it was".to_owned()),
            _ => {}
        }
        let places = [
            (TenantId(tenant.0 ^ 1 << (input.len() % 64)), number),
            (tenant, number ^ 1 << (input.len() % 32)),
        ];
        for (other, place) in places {
            let other_place = (other, place) != (tenant, number);
            if other_place && verify_tail(other, place, &whole).is_some() {
                return Err(format!("it is accepted as page {place} of {other:?}"));
            }
            let mut moved = whole.clone();
            if place > 0 {
                set_tail(other, place, stamp, &mut moved);
                if tail_check(&moved) == tail_check(&whole) {
                    return Err(format!("it has the check of page {place} of {other:?}"));
                }
            }
        }
        Ok(())
    }
}

fn edit(program: &mut Program<'_>, page: &mut [u8]) {
    let kind = program.byte();
    let at = program.below(PAGE_BYTES);
    let value = program.byte();
    match kind % 4 {
        0 => page[at] ^= 1 << (value % 8),
        1 => page[at] = value,
        2 => {
            let end = (at + usize::from(value)).min(PAGE_BYTES);
            page[at..end].fill(0);
        }
        _ => page.rotate_left(usize::from(value)),
    }
}
