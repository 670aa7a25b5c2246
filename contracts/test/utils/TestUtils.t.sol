// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.30;

import {Deploy} from "./Deploy.sol";
import {Invariant} from "./Invariant.sol";
import {Test, Vm} from "./Test.sol";

contract Thrower {
    error Thrower_Told(uint256 value);

    event Heard(uint256 indexed key, uint256 value);

    function tell(uint256 value) external pure {
        revert Thrower_Told(value);
    }

    function say(uint256 key, uint256 value) external {
        emit Heard(key, value);
    }
}

/// @notice The helpers every other test leans on: an assertion that cannot fail would hide all failures.
contract TestUtilsTest is Test {
    Thrower internal thrower = new Thrower();

    function testFuzz_boundStaysInside(uint256 x, uint256 a, uint256 b) public pure {
        (uint256 min, uint256 max) = a < b ? (a, b) : (b, a);
        uint256 y = bound(x, min, max);
        assertGe(y, min);
        assertLe(y, max);
        if (x >= min && x <= max) assertEq(y, x);
    }

    function testFuzz_boundStaysInsideSigned(int256 x, int256 a, int256 b) public pure {
        (int256 min, int256 max) = a < b ? (a, b) : (b, a);
        int256 y = bound(x, min, max);
        assertGe(y, min);
        assertLe(y, max);
        if (x >= min && x <= max) assertEq(y, x);
    }

    function test_boundReachesBothEnds() public pure {
        assertEq(bound(uint256(0), 10, 20), 10);
        assertEq(bound(type(uint256).max, 10, 20), 20);
    }

    function test_assertionsFail() public {
        vm.expectRevert();
        this.unequal();
        vm.expectRevert();
        this.untrue();
        vm.expectRevert();
        this.unequalBytes();
    }

    function unequal() external pure {
        assertEq(uint256(1), uint256(2), "numbers");
    }

    function untrue() external pure {
        assertTrue(false);
    }

    function unequalBytes() external pure {
        assertEq(bytes("a"), bytes("b"));
    }

    function test_expectRevertSeesTheValue() public {
        vm.expectRevert(abi.encodeWithSelector(Thrower.Thrower_Told.selector, 7), address(thrower));
        thrower.tell(7);
        vm.expectPartialRevert(Thrower.Thrower_Told.selector);
        thrower.tell(8);
    }

    function test_expectEmitAndRecordedLogs() public {
        vm.expectEmit(address(thrower));
        emit Thrower.Heard(1, 2);
        thrower.say(1, 2);

        vm.recordLogs();
        thrower.say(3, 4);
        Vm.Log[] memory logs = vm.getRecordedLogs();
        assertEq(logs.length, 1);
        assertEq(logs[0].topics[1], bytes32(uint256(3)));
        assertEq(logs[0].emitter, address(thrower));
    }

    function test_signRecovers() public {
        (address alice, uint256 key) = makeAddrAndKey("alice");
        bytes32 digest = keccak256("message");
        (uint8 v, bytes32 r, bytes32 s) = vm.sign(key, digest);
        assertEq(sign(key, digest), abi.encodePacked(r, s, v));
        assertEq(ecrecover(digest, v, r, s), alice);
    }

    function test_p256PrecompileTakesAGoodSignatureOnly() public view {
        (bytes32 r, bytes32 s) = vm.signP256(5, keccak256("message"));
        (uint256 x, uint256 y) = vm.publicKeyP256(5);
        (, bytes memory good) = address(0x100).staticcall(abi.encode(keccak256("message"), r, s, x, y));
        assertEq(good, abi.encode(1));
        (, bytes memory bad) = address(0x100).staticcall(abi.encode(keccak256("another"), r, s, x, y));
        assertEq(bad, "");
    }

    function test_blockCheats() public {
        vm.chainId(1);
        assertEq(block.chainid, 1);
        vm.roll(100);
        vm.setBlockhash(99, keccak256("99"));
        assertEq(blockhash(99), keccak256("99"));
        vm.warp(1000);
        skip(5);
        assertEq(block.timestamp, 1005);
    }

    function test_json() public pure {
        string memory json = '{"a": {"n": 7, "h": ["0x01", "0x0203"]}}';
        assertEq(vm.parseJsonUint(json, ".a.n"), 7);
        assertEq(vm.parseJsonBytesArray(json, ".a.h")[1], hex"0203");
    }
}

contract Handler {
    uint256 public wanted;
    uint256 public unwanted;

    function count() external {
        ++wanted;
    }

    function trap() external {
        ++unwanted;
    }
}

contract DeployTest is Deploy {
    /// @dev A fallback that were taken for what ships would test other code, and tell nobody.
    function test_deploysWhatShips() public view {
        if (!vm.envOr("SHIPPED", false)) return;
        assertEq(_creationCode("ComputeOracle.sol:ComputeOracle"), vm.getCode("oracle/abi/ComputeOracle.json"));
    }
}

contract InvariantUtilsTest is Invariant {
    Handler internal handler = new Handler();

    function setUp() public {
        bytes4[] memory selectors = new bytes4[](1);
        selectors[0] = Handler.count.selector;
        targetContract(address(handler));
        targetSelector(address(handler), selectors);
    }

    function invariant_onlyTargetedSelectorsRun() public view {
        assertEq(handler.unwanted(), 0);
    }

    /// @dev Without this, targets that never matched would pass the invariant above.
    function afterInvariant() public view {
        assertGt(handler.wanted(), 0);
    }
}
