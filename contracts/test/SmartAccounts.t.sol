// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.30;

import {IERC1271} from "@openzeppelin/contracts/interfaces/IERC1271.sol";
import {Agreement, Audit, TaskRequest} from "../src/Types.sol";
import {IAgreementRegistry as R} from "../src/interfaces/IAgreementRegistry.sol";
import {IComputeOracle as O} from "../src/interfaces/IComputeOracle.sol";
import {ConsentKind, TaskState} from "../src/libraries/Constants.sol";
import {Fixture} from "./Fixture.sol";

/// @dev Of Safe 1.5.0, what the tests call.
interface ISafe {
    function setup(
        address[] calldata owners,
        uint256 threshold,
        address to,
        bytes calldata data,
        address fallbackHandler,
        address paymentToken,
        uint256 payment,
        address payable paymentReceiver
    ) external;
    function execTransaction(
        address to,
        uint256 value,
        bytes calldata data,
        uint8 operation,
        uint256 safeTxGas,
        uint256 baseGas,
        uint256 gasPrice,
        address gasToken,
        address payable refundReceiver,
        bytes memory signatures
    ) external payable returns (bool success);
    function getTransactionHash(
        address to,
        uint256 value,
        bytes calldata data,
        uint8 operation,
        uint256 safeTxGas,
        uint256 baseGas,
        uint256 gasPrice,
        address gasToken,
        address refundReceiver,
        uint256 nonce
    ) external view returns (bytes32);
    function nonce() external view returns (uint256);
    function domainSeparator() external view returns (bytes32);
    function swapOwner(address prevOwner, address oldOwner, address newOwner) external;
    function signMessage(bytes calldata data) external;
}

interface ISafeProxyFactory {
    function createProxyWithNonce(address singleton, bytes memory initializer, uint256 saltNonce)
        external
        returns (address proxy);
    function proxyCreationCode() external pure returns (bytes memory);
}

/// @notice Smart accounts as parties and as requesters: Safe 1.5.0 from its npm package, as its authors compiled it (R7).
contract SafeTest is Fixture {
    string private constant ARTIFACTS = "node_modules/@safe-global/safe-smart-account/build/artifacts/contracts/";
    bytes32 private constant SAFE_MESSAGE = keccak256("SafeMessage(bytes message)");
    /// @dev The head of a Safe's list of owners.
    address private constant SENTINEL = address(1);
    uint8 private constant CALL = 0;
    uint8 private constant DELEGATECALL = 1;

    ISafeProxyFactory private factory;
    address private singleton;
    address private handler;
    /// Two of these three; a Safe wants signatures in the order of the addresses.
    address[] private owners;
    uint256[] private keys;
    uint256[] private two;
    ISafe private safe;
    /// The Safe is the owner of its first dataset.
    Agreement private a;
    bytes32 private id;

    function setUp() public override {
        super.setUp();
        singleton = deploy(string.concat(ARTIFACTS, "Safe.sol/Safe.json"), "");
        factory = ISafeProxyFactory(
            deploy(string.concat(ARTIFACTS, "proxies/SafeProxyFactory.sol/SafeProxyFactory.json"), "")
        );
        handler = deploy(
            string.concat(ARTIFACTS, "handler/CompatibilityFallbackHandler.sol/CompatibilityFallbackHandler.json"), ""
        );
        for (uint256 i; i < 3; ++i) {
            (address owner, uint256 key) = makeAddrAndKey(string.concat("Safe owner ", vm.toString(i)));
            uint256 j = owners.length;
            owners.push(owner);
            keys.push(key);
            for (; j > 0 && owners[j - 1] > owner; --j) {
                (owners[j], owners[j - 1]) = (owners[j - 1], owners[j]);
                (keys[j], keys[j - 1]) = (keys[j - 1], keys[j]);
            }
        }
        two.push(keys[0]);
        two.push(keys[2]);
        safe = ISafe(factory.createProxyWithNonce(singleton, _initializer(), 0));
        a = _agreement();
        a.data[0].owner = address(safe);
        id = registry.agreementIdOf(a);
    }

    // Consent

    function test_consentsByItsOwnersSignatures() public {
        vm.expectEmit(address(registry));
        emit R.ConsentRecorded(id, address(safe), ConsentKind.ERC1271);
        _activateWith(_safeSignature(safe, id, two));
        assertEq(registry.consentOf(id, address(safe)), ConsentKind.ERC1271);
    }

    function test_anyoneBringsItsSignaturesAhead() public {
        bytes memory signature = _safeSignature(safe, id, two);
        vm.expectEmit(address(registry));
        emit R.AgreementApproved(id, address(safe), ConsentKind.ERC1271, signature);
        vm.prank(stranger);
        registry.sign(id, address(safe), signature);
        _activateWith("");
        assertEq(registry.consentOf(id, address(safe)), ConsentKind.ERC1271);
    }

    function test_consentsByItsOwnTransaction() public {
        _execute(address(registry), abi.encodeCall(R.approve, (id)));
        _activateWith("");
        assertEq(registry.consentOf(id, address(safe)), ConsentKind.OWN_TRANSACTION);
    }

    /// A message that the Safe marked as signed has an empty signature, which activation takes for none: it is brought ahead.
    function test_consentsByAMessageSignedOnChain() public {
        _refusesToSign("");
        address library_ = deploy(string.concat(ARTIFACTS, "libraries/SignMessageLib.sol/SignMessageLib.json"), "");
        _execute(library_, abi.encodeCall(ISafe.signMessage, (abi.encode(id))), DELEGATECALL);
        registry.sign(id, address(safe), "");
        assertEq(registry.approvalOf(id, address(safe)), ConsentKind.ERC1271);
    }

    function test_refusesOneSignatureTooFew() public {
        _refuses(_safeSignature(safe, id, _keysOf(keys[1])));
    }

    function test_refusesOneOwnerTwice() public {
        _refuses(_safeSignature(safe, id, _keysOf(keys[1], keys[1])));
    }

    function test_refusesAnOwnerAndAStranger() public {
        (, uint256 strangerKey) = makeAddrAndKey("stranger");
        _refuses(_safeSignature(safe, id, _keysOf(keys[1], strangerKey)));
    }

    /// The owners' signatures over the agreement's own digest are theirs, not the Safe's.
    function test_refusesSignaturesOfTheOwnersForThemselves() public {
        _refuses(bytes.concat(sign(keys[0], id), sign(keys[2], id)));
    }

    function test_refusesItsSignatureOfAnotherAgreement() public {
        _refuses(_safeSignature(safe, keccak256("another"), two));
    }

    function test_refusesTheSignatureOfAnotherSafeWithTheSameOwners() public {
        ISafe other = ISafe(factory.createProxyWithNonce(singleton, _initializer(), 1));
        _refuses(_safeSignature(other, id, two));
    }

    function test_refusesItsSignatureOfAnotherChain() public {
        vm.chainId(1);
        bytes memory signature = _safeSignature(safe, id, two);
        vm.chainId(31_337);
        _refuses(signature);
    }

    /// R7: only deployed code. Its address is known before, and so is who would own it.
    function test_refusesASafeThatIsNotDeployedYet() public {
        address counterfactual = _addressOf(7);
        a.data[0].owner = counterfactual;
        id = registry.agreementIdOf(a);
        // Its domain is known as well: chain and address.
        bytes32 domain = keccak256(
            abi.encode(
                keccak256("EIP712Domain(uint256 chainId,address verifyingContract)"), block.chainid, counterfactual
            )
        );
        bytes memory signature = _signAll(_messageHash(domain, id), two);
        _refuses(signature);
        // Nor in the wrapping of ERC-6492, which tells how to deploy it.
        bytes memory creation = abi.encodeCall(factory.createProxyWithNonce, (singleton, _initializer(), 7));
        bytes32 magic = 0x6492649264926492649264926492649264926492649264926492649264926492;
        _refuses(bytes.concat(abi.encode(address(factory), creation, signature), magic));

        assertEq(factory.createProxyWithNonce(singleton, _initializer(), 7), counterfactual);
        assertEq(ISafe(counterfactual).domainSeparator(), domain);
        _activateWith(signature);
        assertEq(registry.consentOf(id, counterfactual), ConsentKind.ERC1271);
    }

    // Owners that change

    function test_recordedConsentOutlivesItsOwners() public {
        _activateWith(_safeSignature(safe, id, two));
        _rotate();
        assertEq(registry.consentOf(id, address(safe)), ConsentKind.ERC1271);
        _request(_taskRequest(id));
    }

    /// So does one that was brought ahead: the Safe revokes what it no longer wants.
    function test_signatureBroughtAheadOutlivesItsOwners() public {
        registry.sign(id, address(safe), _safeSignature(safe, id, two));
        _rotate();
        uint256 snapshot = vm.snapshotState();
        _activateWith("");
        assertEq(registry.consentOf(id, address(safe)), ConsentKind.ERC1271);

        vm.revertToState(snapshot);
        _execute(address(registry), abi.encodeCall(R.revoke, (id)));
        bytes[] memory signatures = _signatures(a);
        signatures[1] = "";
        vm.expectRevert(abi.encodeWithSelector(R.AgreementRegistry_RevokedBy.selector, address(safe), id));
        registry.activate(a, signatures, _noAuditors());
    }

    function test_refusesASignatureOfFormerOwners() public {
        bytes memory signature = _safeSignature(safe, id, two);
        _rotate();
        _refuses(signature);
        _activateWith(_safeSignature(safe, id, _sorted(two)));
    }

    // Narrowing, as any party

    function test_suspendsResumesAndRevokesByItsOwnTransactions() public {
        _activateWith(_safeSignature(safe, id, two));
        _execute(address(registry), abi.encodeCall(R.suspend, (id)));
        assertTrue(registry.isSuspendedBy(id, address(safe)));
        assertEq(uint8(registry.status(id)), uint8(R.Status.Suspended));
        _execute(address(registry), abi.encodeCall(R.resume, (id)));
        assertEq(uint8(registry.status(id)), uint8(R.Status.Active));
        _execute(address(registry), abi.encodeCall(R.dropMeasurement, (id, MEASUREMENT)));
        assertTrue(registry.isDropped(id, MEASUREMENT));
        _execute(address(registry), abi.encodeCall(R.revoke, (id)));
        assertEq(uint8(registry.status(id)), uint8(R.Status.Revoked));
    }

    function test_oneOfItsOwnersAloneNarrowsNothing() public {
        _activateWith(_safeSignature(safe, id, two));
        bytes memory data = abi.encodeCall(R.revoke, (id));
        bytes memory signature = _signAll(_transactionHash(address(registry), data, CALL), _keysOf(keys[1]));
        vm.expectRevert("GS020");
        safe.execTransaction(address(registry), 0, data, CALL, 0, 0, 0, address(0), payable(address(0)), signature);
        vm.expectRevert(abi.encodeWithSelector(R.AgreementRegistry_NotAParty.selector, owners[1], id));
        vm.prank(owners[1]);
        registry.revoke(id);
    }

    function test_supersedesWhatItAgreedToBefore() public {
        _activateWith(_safeSignature(safe, id, two));
        bytes32 old = id;
        a.supersedes = old;
        id = registry.agreementIdOf(a);
        _activateWith(_safeSignature(safe, id, two));
        assertEq(uint8(registry.status(old)), uint8(R.Status.Superseded));
    }

    // Other roles

    function test_publishesVersionsOfItsStream() public {
        bytes memory publish = abi.encodeCall(streams.publish, (keccak256("stream"), DATASET_A, keccak256("shares")));
        _execute(address(streams), publish);
        assertEq(streams.versionCount(address(safe), keccak256("stream")), 1);
    }

    function test_auditsAFunction() public {
        Audit memory audit = Audit({functionId: a.fn.id, report: keccak256("report")});
        bytes32 digest = audits.auditDigestOf(audit);
        audits.approveFor(address(safe), audit, _safeSignature(safe, digest, two));
        assertEq(audits.reportOf(a.fn.id, address(safe)), audit.report);
    }

    function test_requestsByASignatureThatAnyoneBrings() public {
        TaskRequest memory r = _safeRequest();
        bytes memory signature = _safeSignature(safe, oracle.taskIdOf(r), two);
        O.Payment memory none;
        vm.deal(stranger, FEE);
        vm.prank(stranger);
        oracle.requestFor{value: FEE}(r, _anyone(), "", signature, none);
        assertEq(_state(r), TaskState.REQUESTED);

        // What comes back is the Safe's, whoever paid.
        _execute(address(oracle), abi.encodeCall(oracle.cancel, (r, _anyone())));
        assertEq(oracle.balanceOf(address(0), address(safe)), FEE);
        _execute(address(oracle), abi.encodeCall(oracle.withdraw, (address(0), address(safe))));
        assertEq(address(safe).balance, FEE);
    }

    function test_refusesARequestOfOneOwnerAlone() public {
        TaskRequest memory r = _safeRequest();
        bytes memory signature = _safeSignature(safe, oracle.taskIdOf(r), _keysOf(keys[1]));
        O.Payment memory none;
        bytes memory err =
            abi.encodeWithSelector(O.ComputeOracle_BadRequestSignature.selector, oracle.taskIdOf(r), address(safe));
        vm.deal(stranger, FEE);
        vm.expectRevert(err);
        vm.prank(stranger);
        oracle.requestFor{value: FEE}(r, _anyone(), "", signature, none);
    }

    function test_refusesARequestThatItsOwnersSignedWithAnotherNonce() public {
        TaskRequest memory r = _safeRequest();
        bytes memory signature = _safeSignature(safe, oracle.taskIdOf(r), two);
        r.nonce = keccak256("another nonce");
        O.Payment memory none;
        bytes memory err =
            abi.encodeWithSelector(O.ComputeOracle_BadRequestSignature.selector, oracle.taskIdOf(r), address(safe));
        vm.deal(stranger, FEE);
        vm.expectRevert(err);
        vm.prank(stranger);
        oracle.requestFor{value: FEE}(r, _anyone(), "", signature, none);
    }

    function _safeRequest() private returns (TaskRequest memory r) {
        _activateWith(_safeSignature(safe, id, two));
        r = _taskRequest(id);
        r.requester = address(safe);
    }

    // A Safe

    function _initializer() private view returns (bytes memory) {
        return abi.encodeCall(ISafe.setup, (owners, 2, address(0), "", handler, address(0), 0, payable(address(0))));
    }

    function _addressOf(uint256 saltNonce) private view returns (address) {
        bytes32 salt = keccak256(abi.encodePacked(keccak256(_initializer()), saltNonce));
        bytes memory code = bytes.concat(factory.proxyCreationCode(), abi.encode(singleton));
        return address(uint160(uint256(keccak256(abi.encodePacked(hex"ff", address(factory), salt, keccak256(code))))));
    }

    /// @dev Another owner takes the first one's place, whose key `two` gets.
    function _rotate() private {
        (address fresh, uint256 freshKey) = makeAddrAndKey("Safe owner, new");
        // The list is in the order of setup, and the sentinel is before its first.
        _execute(address(safe), abi.encodeCall(ISafe.swapOwner, (SENTINEL, owners[0], fresh)));
        two[0] = freshKey;
        two = _sorted(two);
    }

    function _execute(address to, bytes memory data) private {
        _execute(to, data, CALL);
    }

    function _execute(address to, bytes memory data, uint8 operation) private {
        bytes memory signatures = _signAll(_transactionHash(to, data, operation), two);
        assertTrue(safe.execTransaction(to, 0, data, operation, 0, 0, 0, address(0), payable(address(0)), signatures));
    }

    function _transactionHash(address to, bytes memory data, uint8 operation) private view returns (bytes32) {
        return safe.getTransactionHash(to, 0, data, operation, 0, 0, 0, address(0), address(0), safe.nonce());
    }

    /// @dev What a Safe's owners sign where it is asked for `digest` by ERC-1271.
    function _safeSignature(ISafe account, bytes32 digest, uint256[] memory signers)
        private
        view
        returns (bytes memory)
    {
        return _signAll(_messageHash(account.domainSeparator(), digest), signers);
    }

    function _messageHash(bytes32 domain, bytes32 digest) private pure returns (bytes32) {
        bytes32 message = keccak256(abi.encode(SAFE_MESSAGE, keccak256(abi.encode(digest))));
        return keccak256(abi.encodePacked(hex"1901", domain, message));
    }

    function _signAll(bytes32 digest, uint256[] memory signers) private pure returns (bytes memory signatures) {
        for (uint256 i; i < signers.length; ++i) {
            signatures = bytes.concat(signatures, sign(signers[i], digest));
        }
    }

    function _keysOf(uint256 key) private pure returns (uint256[] memory list) {
        list = new uint256[](1);
        list[0] = key;
    }

    function _keysOf(uint256 first, uint256 second) private pure returns (uint256[] memory list) {
        list = new uint256[](2);
        (list[0], list[1]) = (first, second);
        return _sorted(list);
    }

    /// @dev By address.
    function _sorted(uint256[] memory list) private pure returns (uint256[] memory) {
        if (vm.addr(list[0]) > vm.addr(list[1])) (list[0], list[1]) = (list[1], list[0]);
        return list;
    }

    // Expectations

    function _activateWith(bytes memory signature) private {
        bytes[] memory signatures = _signatures(a);
        signatures[1] = signature;
        registry.activate(a, signatures, _noAuditors());
    }

    /// @dev Whichever way it is brought.
    function _refuses(bytes memory signature) private {
        _refusesToSign(signature);
        bytes[] memory signatures = _signatures(a);
        signatures[1] = signature;
        vm.expectRevert(abi.encodeWithSelector(R.AgreementRegistry_BadSignature.selector, a.data[0].owner, id));
        registry.activate(a, signatures, _noAuditors());
    }

    function _refusesToSign(bytes memory signature) private {
        vm.expectRevert(abi.encodeWithSelector(R.AgreementRegistry_BadSignature.selector, a.data[0].owner, id));
        registry.sign(id, a.data[0].owner, signature);
    }
}

/// @notice Says yes to everything.
contract Credulous is IERC1271 {
    function isValidSignature(bytes32, bytes memory) external pure returns (bytes4) {
        return IERC1271.isValidSignature.selector;
    }
}

/// @notice Says no to everything.
contract Suspicious is IERC1271 {
    function isValidSignature(bytes32, bytes memory) external pure returns (bytes4) {
        return 0xffffffff;
    }
}

/// @notice Accounts with a key whose code is delegated (EIP-7702).
contract DelegatedAccountTest is Fixture {
    Agreement private a;
    bytes32 private id;
    bytes[] private signatures;

    function setUp() public override {
        super.setUp();
        a = _agreement();
        id = registry.agreementIdOf(a);
        signatures = _signatures(a);
    }

    function test_consentsByItsKey() public {
        _delegate(address(new Credulous()));
        _activate(a);
        assertEq(registry.consentOf(id, hospitalA), ConsentKind.ECDSA);
    }

    /// Its key comes first: code that says no does not undo what the key signed.
    function test_consentsByItsKeyWhateverItsCodeSays() public {
        _delegate(address(new Suspicious()));
        _activate(a);
        assertEq(registry.consentOf(id, hospitalA), ConsentKind.ECDSA);
    }

    /// Whoever holds the key chose that code, and with it that anybody's bytes consent; no contract can tell it from a wallet
    /// with rules. So it is recorded as ERC-1271, never as ECDSA: a broker, which recomputes ECDSA itself and reads ERC-1271
    /// as recorded (R13), sees that this consent is worth what the code was at that block, and may ask for more.
    function test_codeThatSaysYesToEverythingIsRecordedAsERC1271() public {
        _delegate(address(new Credulous()));
        signatures[1] = "anybody's";
        vm.prank(stranger);
        registry.activate(a, signatures, _noAuditors());
        assertEq(registry.consentOf(id, hospitalA), ConsentKind.ERC1271);
    }

    function test_codeThatSaysYesToEverythingSignsAheadAsERC1271() public {
        _delegate(address(new Credulous()));
        vm.prank(stranger);
        registry.sign(id, hospitalA, "");
        assertEq(registry.approvalOf(id, hospitalA), ConsentKind.ERC1271);
        // Until the key's holder says otherwise.
        vm.prank(hospitalA);
        registry.revoke(id);
        vm.expectRevert(abi.encodeWithSelector(R.AgreementRegistry_AlreadyRevoked.selector, hospitalA, id));
        registry.sign(id, hospitalA, "");
    }

    function test_delegationTakenBackConsentsToNothing() public {
        _delegate(address(new Credulous()));
        _delegate(address(0));
        assertEq(hospitalA.code.length, 0);
        signatures[1] = "anybody's";
        vm.expectRevert(abi.encodeWithSelector(R.AgreementRegistry_BadSignature.selector, hospitalA, id));
        registry.activate(a, signatures, _noAuditors());
    }

    function test_delegationToNoCodeConsentsByItsKeyOnly() public {
        _delegate(makeAddr("no code"));
        assertEq(hospitalA.code.length, 23);
        bytes memory own = signatures[1];
        signatures[1] = "anybody's";
        vm.expectRevert(abi.encodeWithSelector(R.AgreementRegistry_BadSignature.selector, hospitalA, id));
        registry.activate(a, signatures, _noAuditors());
        signatures[1] = own;
        registry.activate(a, signatures, _noAuditors());
        assertEq(registry.consentOf(id, hospitalA), ConsentKind.ECDSA);
    }

    /// By a real authorization in a transaction.
    function _delegate(address code) private {
        vm.signAndAttachDelegation(code, hospitalAKey);
        (bool success,) = makeAddr("anyone").call("");
        assertTrue(success);
        if (code != address(0)) assertEq(hospitalA.code, abi.encodePacked(hex"ef0100", code));
    }
}
