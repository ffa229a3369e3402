//! Rules and their instructions.

use std::borrow::Cow;
use std::ffi::{CStr, c_void};
use std::ptr::NonNull;

use nftnl::expr::Expression;
use nftnl::{MsgType, NlMsg, Rule as RuleMessage};
use nftnl_sys as sys;

use super::{Owned, copied, header, parse, text};
use crate::kernel::nft::bytecode::Instruction;
use crate::kernel::nft::ruleset::TABLE;
use crate::model::Table;

impl Expression for Instruction {
    fn to_expr(&self, _rule: &RuleMessage) -> NonNull<sys::nftnl_expr> {
        // SAFETY: the name ends in NUL; every operand is copied from bytes of the given length.
        unsafe {
            let Some(expression) = NonNull::new(sys::nftnl_expr_alloc(self.name.as_ptr())) else {
                std::process::abort();
            };
            for (operand, value) in &self.operands {
                let length = value.len() as u32;
                sys::nftnl_expr_set(expression.as_ptr(), *operand as u16, value.as_ptr().cast(), length);
            }
            expression
        }
    }
}

/// A rule as the kernel lists it.
#[derive(Debug)]
pub(crate) struct ListedRule {
    pub(crate) chain: Vec<u8>,
    pub(crate) user_data: Vec<u8>,
    pub(crate) instructions: Vec<Instruction>,
}

/// All rules of one of our tables, for a listing.
pub(crate) struct AllRules(Table, Owned<sys::nftnl_rule>);

impl AllRules {
    pub(crate) fn new(table: Table) -> Self {
        // SAFETY: the object is a rule; the name ends in NUL and is copied.
        unsafe {
            let rule = Owned::new(sys::nftnl_rule_alloc(), sys::nftnl_rule_free);
            sys::nftnl_rule_set_str(rule.get(), sys::NFTNL_RULE_TABLE as u16, TABLE.as_ptr());
            Self(table, rule)
        }
    }
}

// SAFETY: `write` adds a header and the table's name.
unsafe impl NlMsg for AllRules {
    unsafe fn write(&self, buffer: *mut c_void, sequence: u32, _: MsgType) {
        // SAFETY: the caller provides a buffer that is large enough.
        unsafe {
            let header = header(buffer, sequence, self.0);
            sys::nftnl_rule_nlmsg_build_payload(header, self.1.get());
        }
    }
}

/// Reads an `NFT_MSG_NEWRULE`. Of a rule with an instruction that libnftnl does not know, only
/// the chain is read: it cannot be one of ours.
pub(crate) fn rule(message: &[u8]) -> Option<ListedRule> {
    // SAFETY: each getter is given the object it belongs to, and what it returns is copied before
    // the object is freed. The iterator is destroyed before the rule, and the rule owns the
    // expressions.
    unsafe {
        let rule = Owned::new(sys::nftnl_rule_alloc(), sys::nftnl_rule_free);
        let known = parse(message, &rule, sys::nftnl_rule_nlmsg_parse);
        let chain = text(sys::nftnl_rule_get_str(rule.get(), sys::NFTNL_RULE_CHAIN as u16));
        if !known {
            return (!chain.is_empty()).then(|| ListedRule { chain, user_data: vec![], instructions: vec![] });
        }
        let mut length = 0;
        let user_data = sys::nftnl_rule_get_data(rule.get(), sys::NFTNL_RULE_USERDATA as u16, &mut length);
        let user_data = copied(user_data, length);
        let iterator = sys::nftnl_expr_iter_create(rule.get());
        if iterator.is_null() {
            return None;
        }
        let mut instructions = Vec::new();
        loop {
            let expression = sys::nftnl_expr_iter_next(iterator);
            if expression.is_null() {
                break;
            }
            instructions.push(instruction(expression));
        }
        sys::nftnl_expr_iter_destroy(iterator);
        Some(ListedRule { chain, user_data, instructions })
    }
}

/// Reads whatever operands an expression has.
///
/// # Safety
/// `expression` is one of libnftnl's.
unsafe fn instruction(expression: *mut sys::nftnl_expr) -> Instruction {
    // SAFETY: by the caller's promise; operands are copied at once.
    unsafe {
        let name = sys::nftnl_expr_get_str(expression, sys::NFTNL_EXPR_NAME as u16);
        let operands = (sys::NFTNL_EXPR_BASE..u32::BITS)
            .filter(|operand| sys::nftnl_expr_is_set(expression, *operand as u16))
            .map(|operand| {
                let mut length = 0;
                let value = sys::nftnl_expr_get(expression, operand as u16, &mut length);
                (operand, copied(value, length))
            })
            .collect();
        Instruction { name: Cow::Owned(CStr::from_ptr(name).to_owned()), operands }.normal()
    }
}
