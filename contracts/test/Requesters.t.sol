// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.30;

import {IAgreementRegistry as I} from "../src/interfaces/IAgreementRegistry.sol";
import {Spending} from "./Spending.sol";

/// @notice Who may ask, and how often each: a Merkle root of (address, uint64), OpenZeppelin's StandardMerkleTree.
contract RequestersTest is Spending {
    /// Every listed address with its own quota, and nobody else; trees of every shape, odd ones too.
    function testFuzz_takesWhoIsListed(uint8 size, uint8 pick, uint8 other) public {
        size = uint8(bound(size, 1, 13));
        pick = uint8(bound(pick, 0, size - 1));
        (bytes32[] memory tree, uint256[] memory place) = _list(size);
        a.access.requesters = tree[0];
        a.access.quota = 1000;
        a.access.quotaPerRequester = 1000;
        bytes32 id = _activate(a);

        I.Admission memory admission = _listed(tree, place[pick], _quotaOf(pick));
        for (uint256 i; i < _quotaOf(pick); ++i) {
            _spendAs(_listedAt(pick), id, admission);
        }
        assertEq(registry.usedBy(id, _listedAt(pick)), _quotaOf(pick));
        vm.expectRevert(_overOwn(id, _listedAt(pick), uint64(_quotaOf(pick))));
        _spendAs(_listedAt(pick), id, admission);

        vm.expectRevert(_notAllowed(stranger));
        _spendAs(stranger, id, admission);
        if (size == 1) return;
        uint256 wrong = other % size == pick ? (pick + 1) % size : other % size;
        vm.expectRevert(_notAllowed(_listedAt(wrong)));
        _spendAs(_listedAt(wrong), id, admission);
    }

    function test_refusesAnotherQuotaThanListed() public {
        (bytes32[] memory tree, uint256[] memory place) = _list(5);
        a.access.requesters = tree[0];
        bytes32 id = _activate(a);
        vm.expectRevert(_notAllowed(_listedAt(3)));
        _spendAs(_listedAt(3), id, _listed(tree, place[3], _quotaOf(3) + 1));
    }

    function test_refusesNoProofAndAProofTooLong() public {
        (bytes32[] memory tree, uint256[] memory place) = _list(5);
        a.access.requesters = tree[0];
        bytes32 id = _activate(a);
        I.Admission memory admission = _listed(tree, place[2], _quotaOf(2));
        bytes32[] memory longer = new bytes32[](admission.proof.length + 1);
        for (uint256 i; i < admission.proof.length; ++i) {
            longer[i] = admission.proof[i];
        }
        admission.proof = longer;
        vm.expectRevert(_notAllowed(_listedAt(2)));
        _spendAs(_listedAt(2), id, admission);
        admission.proof = new bytes32[](0);
        vm.expectRevert(_notAllowed(_listedAt(2)));
        _spendAs(_listedAt(2), id, admission);
    }

    /// The lower of the two counts.
    function test_listedQuotaIsCappedByThatOfEachRequester() public {
        (bytes32[] memory tree, uint256[] memory place) = _list(4);
        a.access.requesters = tree[0];
        a.access.quotaPerRequester = 2;
        bytes32 id = _activate(a);
        assertEq(_quotaOf(3), 4);
        I.Admission memory admission = _listed(tree, place[3], 4);
        _spendAs(_listedAt(3), id, admission);
        _spendAs(_listedAt(3), id, admission);
        vm.expectRevert(_overOwn(id, _listedAt(3), 2));
        _spendAs(_listedAt(3), id, admission);
    }

    function test_listedQuotasTogetherStayWithinTheAgreements() public {
        (bytes32[] memory tree, uint256[] memory place) = _list(4);
        a.access.requesters = tree[0];
        (a.access.quota, a.access.quotaPerRequester) = (5, 5);
        bytes32 id = _activate(a);
        for (uint256 i; i < 4; ++i) {
            _spendAs(_listedAt(3), id, _listed(tree, place[3], 4));
        }
        _spendAs(_listedAt(2), id, _listed(tree, place[2], 3));
        vm.expectRevert(abi.encodeWithSelector(I.AgreementRegistry_QuotaSpent.selector, id, 5));
        _spendAs(_listedAt(1), id, _listed(tree, place[1], 2));
    }

    function test_listedWithNothingIsRefused() public {
        bytes32[] memory leaves = new bytes32[](1);
        leaves[0] = _leaf(requester, 0);
        a.access.requesters = leaves[0];
        bytes32 id = _activate(a);
        I.Admission memory admission = _admission(a);
        _refuses(id, 0, admission, _overOwn(id, requester, 0));
    }

    /// Listed twice by mistake: never more than the larger of the two.
    function test_listedTwiceIsNotAddedUp() public {
        bytes32[] memory leaves = new bytes32[](2);
        (leaves[0], leaves[1]) = (_leaf(requester, 2), _leaf(requester, 3));
        bytes32[] memory tree = _tree(leaves);
        a.access.requesters = tree[0];
        bytes32 id = _activate(a);
        I.Admission memory two = _admission(a);
        (two.quota, two.proof) = (2, _one(leaves[1]));
        I.Admission memory three = _admission(a);
        (three.quota, three.proof) = (3, _one(leaves[0]));
        _spend(id, 0, two);
        _spend(id, 0, two);
        _refuses(id, 0, two, _overOwn(id, requester, 2));
        _spend(id, 0, three);
        _refuses(id, 0, three, _overOwn(id, requester, 3));
    }

    function test_unspendGivesAListedRequesterItsOwnBack() public {
        (bytes32[] memory tree, uint256[] memory place) = _list(3);
        a.access.requesters = tree[0];
        bytes32 id = _activate(a);
        I.Admission memory admission = _listed(tree, place[1], 2);
        _spendAs(_listedAt(1), id, admission);
        vm.startPrank(address(oracle));
        // By its own leaf only: else its count would stand.
        admission.quota = 3;
        vm.expectRevert(_notAllowed(_listedAt(1)));
        registry.unspend(id, _listedAt(1), versions, 0, admission);
        admission.quota = 2;
        registry.unspend(id, _listedAt(1), versions, 0, admission);
        assertEq(registry.usedBy(id, _listedAt(1)), 0);
        assertEq(registry.agreement(id).used, 0);
    }

    function _notAllowed(address who) private view returns (bytes memory) {
        return abi.encodeWithSelector(I.AgreementRegistry_RequesterNotAllowed.selector, who, a.access.requesters);
    }

    function _leaf(address who, uint256 quota) private pure returns (bytes32) {
        return keccak256(bytes.concat(keccak256(abi.encode(who, quota))));
    }

    /// @dev The root first, the leaves last and backwards; node i's children are 2i + 1 and 2i + 2.
    function _tree(bytes32[] memory leaves) private pure returns (bytes32[] memory tree) {
        uint256 n = leaves.length;
        tree = new bytes32[](2 * n - 1);
        for (uint256 i; i < n; ++i) {
            tree[2 * n - 2 - i] = leaves[i];
        }
        for (uint256 i = n - 1; i > 0; --i) {
            (bytes32 l, bytes32 r) = (tree[2 * i - 1], tree[2 * i]);
            tree[i - 1] = l < r ? keccak256(bytes.concat(l, r)) : keccak256(bytes.concat(r, l));
        }
    }

    function _listedAt(uint256 i) private pure returns (address) {
        return address(uint160(0xacc0 + i));
    }

    function _quotaOf(uint256 i) private pure returns (uint256) {
        return i + 1;
    }

    /// @return tree of `size` accounts
    /// @return place where in the tree each account is: the leaves are sorted
    function _list(uint256 size) private pure returns (bytes32[] memory tree, uint256[] memory place) {
        bytes32[] memory leaves = new bytes32[](size);
        for (uint256 i; i < size; ++i) {
            bytes32 leaf = _leaf(_listedAt(i), _quotaOf(i));
            uint256 j = i;
            for (; j > 0 && leaves[j - 1] > leaf; --j) {
                leaves[j] = leaves[j - 1];
            }
            leaves[j] = leaf;
        }
        tree = _tree(leaves);
        place = new uint256[](size);
        for (uint256 i; i < size; ++i) {
            bytes32 leaf = _leaf(_listedAt(i), _quotaOf(i));
            uint256 j = size - 1;
            while (tree[j] != leaf) ++j;
            place[i] = j;
        }
    }

    function _listed(bytes32[] memory tree, uint256 place, uint256 quota)
        private
        pure
        returns (I.Admission memory admission)
    {
        admission.requesters = tree[0];
        admission.quota = uint64(quota);
        uint256 depth;
        for (uint256 i = place; i != 0; i = (i - 1) / 2) {
            ++depth;
        }
        admission.proof = new bytes32[](depth);
        for (uint256 i; i < depth; ++i) {
            admission.proof[i] = tree[place % 2 == 1 ? place + 1 : place - 1];
            place = (place - 1) / 2;
        }
    }
}
